"""What stands below each figure of a scaling law, and what a reader who cannot see it is told."""

from __future__ import annotations

# Of each figure by its name: what is drawn, and what to look for. {level}: of its intervals.
CAPTIONS = {
    "frontier": (
        "How to spend compute. First: how many parameters are best for so many training FLOPs (line); second: "
        "the loss that such a model reaches. Dots are the small runs, bands are {level} intervals. Right of "
        "the dotted line nothing was measured: there the law extrapolates."
    ),
    "isoflop": (
        "Models of several sizes trained with equal compute, a colour for each budget. Too small a model "
        "learns too little, too large a one sees too little text. Lines are the law; a cross is the bottom of "
        "a valley."
    ),
    "residuals": (
        "How far each measured loss lies above the law, in percent. The grey band is twice the noise of one "
        "run. Dots that drift to one side would mean that the law has the wrong shape."
    ),
    "loss-against-data": (
        "Loss against the tokens trained on, a colour for each size of model. Lines are the law, bands its "
        "{level} intervals; E, where drawn, is the loss that more data and more parameters approach. Where "
        "the points of one size show them, its three regions are drawn: too little data to learn from "
        "(shaded), the power law (dotted line), and the end of what that size can learn (shaded)."
    ),
    "repeats": (
        "What reading the same text again is worth. First: epochs counted as epochs of new text; second: the "
        "loss over epochs, dotted if all text had been new."
    ),
    "comparison": (
        "The groups beside each other, a colour each: loss against parameters and against tokens, all else "
        "held where the axis says. Lines are the laws, bands their {level} intervals; dots are the runs, "
        "moved along their law to that cut. The state of a recurrent model runs on through the text, while "
        "one with attention sees its context alone: between such groups a part of the difference is that of "
        "contexts."
    ),
}
ALT = {
    "frontier": "Best number of parameters, and least loss, against compute",
    "isoflop": "Loss against parameters at equal compute",
    "residuals": "Measured above predicted loss in percent",
    "loss-against-data": "Loss against tokens trained on, with the law of each size",
    "repeats": "Worth of repeated epochs, and the loss over them",
    "comparison": "Loss of each group against parameters and against tokens",
}
