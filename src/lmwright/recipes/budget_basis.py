"""What a plan reckons with: a law, its word on a loss, the speed of this machine. Torch-free until it measures.

Without a law of one's own a published one is used. Knows nothing of budgets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from lmwright.errors import ConfigError
from lmwright.model.config import ModelConfig
from lmwright.scaling import laws
from lmwright.scaling.approaches import of_law
from lmwright.scaling.fit.fitted import Fitted
from lmwright.scaling.flops import Convention, flops_per_token
from lmwright.scaling.planning import allocate
from lmwright.scaling.planning.budget import MFU
from lmwright.scaling.points import Floats, logs_of
from lmwright.scaling.published.constants import CONSTANTS
from lmwright.scaling.sweep import Swept, fit_sweep

PUBLISHED = "muennighoff"  # knows repeated data, and C4 is the corpus nearest to text of any kind
WORTHLESS = 40  # epochs


@dataclass(frozen=True, kw_only=True)
class LawUsed:
    """The law that plans. fitted: one's own; None: a published one. source: where it is from, in words.

    doubts: what its own fit says against it.
    """

    name: str
    theta_P: Floats
    convention: Convention
    metric: str
    source: str
    fitted: Fitted | None
    doubts: tuple[str, ...] = ()

    def rules(self) -> Swept:
        """Return what the sweep of the law's ladder taught of rate and batch; the priors where there was none."""
        return fit_sweep(() if self.fitted is None else self.fitted.trials)

    @property
    def knows_repeats(self) -> bool:
        """Whether it can be told how many tokens are distinct."""
        return self.name in allocate.REPEATING

    def seen(self, tokens: float, unique: float) -> LawUsed:
        """Return the law for so many tokens of text: completed with the worth of repeats where there are any."""
        if not (self.knows_repeats and allocate.repeats(self.name, tokens, unique)):
            return self
        fitted = None if self.fitted is None else allocate.with_repeats(self.fitted)
        return replace(self, name="data_constrained", theta_P=allocate.completed(self.theta_P), fitted=fitted)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What this machine does. peak: FLOP/s. mfu: the share of it that training is reckoned to reach.

    measured: by updates of the model; else `mfu` is an assumption that small models do not come near.
    """

    peak: float
    device: Literal["cpu", "cuda"]
    precision: Literal["fp32", "bf16"]
    source: str
    mfu: float = MFU
    measured: bool = False

    @property
    def rate(self) -> float:
        """FLOP/s in training."""
        return self.mfu * self.peak


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """A loss in the law's metric. low, high: of a new run; None where nothing tells. warnings: of its reach.

    worth: unique tokens that would be as good as those trained on.
    """

    loss: float
    worth: float
    low: float | None
    high: float | None
    warnings: tuple[str, ...]


def law_of(path: Path | None) -> LawUsed:
    """Return the law of a file, or the published one. Raises ConfigError for what is no law."""
    if path is None:
        known = CONSTANTS[PUBLISHED]
        return LawUsed(
            name=known.law,
            theta_P=known.theta(),
            convention=known.convention,
            metric="nats/token",
            source=f"published, on {known.data}: {known.source}",
            fitted=None,
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'is no text'}); --law is the file that "
            "`lmwright fit --out` wrote"
        ) from None
    fitted = Fitted.from_json(text, str(path))
    return LawUsed(
        name=fitted.law,
        theta_P=np.array(fitted.theta),
        convention=fitted.convention,
        metric=fitted.metric,
        source=f"{path}, fitted to {fitted.points} points of {fitted.runs} runs",
        fitted=fitted,
        doubts=_of_fit(fitted),
    )


def _of_fit(fitted: Fitted) -> tuple[str, ...]:
    """Say what the fit of a law says against it: its warnings, what it leaves open, and how it would divide."""
    limits = zip(fitted.coordinates, fitted.profile, strict=True)
    found = [f"the law's fit says: {warning}" for warning in fitted.warnings]
    if free := [name for name, limit in limits if not limit.identified]:
        found.append(f"the law's points do not identify its {', '.join(free)}")
    divides = of_law(fitted)
    if divides.frontier is None:
        found.append(f"the law's fit says: {divides.why_not}; so the size of this model is a guess")
    return tuple(found)


def this_machine() -> Speed:
    """Return the machine's peak in the precision that a run would choose: remembered, or measured."""
    import torch

    from lmwright.recipes import doctor
    from lmwright.train import machine
    from lmwright.train.precision import DTYPES, resolve, resolve_device

    device = resolve_device("auto")
    precision = resolve("auto", device)
    known = doctor.remembered()
    peak = None if known is None else known.peak(precision, device, torch.get_num_threads())
    source = "remembered by `lmwright doctor`"
    if peak is None:
        peak = machine.peak_flops(DTYPES[precision], device)
        source = "measured now, in a moment; `lmwright doctor` measures longer and remembers"
    return Speed(peak=peak, device=device, precision=precision, source=source)


def predict(used: LawUsed, model: ModelConfig, tokens: float, length: int, unique: int) -> Predicted:
    """Return the loss that the law gives a model after so many tokens, `unique` of the text distinct.

    A parametric law is completed where text repeats, in each of its draws. An interval is that of the fit.
    """
    # A little over, so that one sequence is not rounded to less than one.
    flops = tokens * flops_per_token(model, length) * (1 + 1e-9)
    spent = allocate.spend(
        used.name, used.theta_P, flops, model, length=length, convention=used.convention,
        unique_tokens=unique if used.knows_repeats else None,
    )  # fmt: skip
    used = used.seen(spent.tokens, unique)
    module = laws.load(used.name)
    known = {"parameters": spent.parameters, "tokens": spent.tokens, "unique_tokens": spent.unique_tokens}
    columns = {name: [known[name]] for name in module.INPUTS}
    if used.fitted is None or not used.fitted.draws:
        loss = math.exp(float(module.log_loss(used.theta_P[None], logs_of(columns))[0][0, 0]))
        return Predicted(loss=loss, worth=spent.worth, low=None, high=None, warnings=spent.warnings)
    found = used.fitted.predict(columns, used.convention)
    return Predicted(
        loss=float(found.loss[0]),
        worth=spent.worth,
        low=float(found.low[0]),
        high=float(found.high[0]),
        warnings=(*spent.warnings, *found.warnings),
    )


def doubts(used: LawUsed, predicted: Predicted, model: ModelConfig, epochs: float) -> tuple[str, ...]:
    """Say what about the law is not to be trusted for such a run."""
    found = list(used.doubts)
    loss, guess = predicted.loss, math.log(model.vocab_size)
    if used.fitted is None:
        found.append(
            "the law is published: its loss is of another corpus and another tokenizer, so it has no interval and "
            "is not to be trusted as a loss"
        )
    elif not used.fitted.draws:
        found.append("the law was fitted without draws, so its loss has no interval; fit with --draws above 0")
    if used.metric == "nats/token" and loss > guess:
        found.append(
            f"a loss of {loss:.3g} is more than guessing gives ({guess:.3g}, the logarithm of the vocabulary): "
            "the law does not reach so far down"
        )
    if epochs > 1 and not used.knows_repeats:
        found.append(
            f"{epochs:.3g} epochs, and law {used.name} counts a repeat as new text: the loss will be higher"
        )
    if epochs > WORTHLESS:
        found.append(
            f"beyond about {WORTHLESS} epochs repeats were worth nothing (Muennighoff et al. 2023), and the loss "
            "on held-out text may rise before the end; the best checkpoint is kept"
        )
    return tuple(found)


def elsewhere(used: LawUsed, family: str, texts: Sequence[str], context: int) -> tuple[str, ...]:
    """Say where the planned run is of another family, text or context than the runs of one's own law.

    texts: what the corpus was built from, and its directory; the points of a law name one of them, or the last
    parts of its path.
    """
    if used.fitted is None:
        return ()
    fitted = used.fitted
    known = [Path(name).parts for name in fitted.domains]
    same_text = any(Path(text).parts[-len(parts) :] == parts for text in texts for parts in known)
    asked = (
        ("models of the family", family, fitted.families, family in fitted.families),
        ("text", texts[0], fitted.domains, same_text),
        ("a context of", context, fitted.contexts, context in fitted.contexts),
    )
    return tuple(
        f"the law is of {what} {', '.join(map(str, those))}, the plan of {planned}: its interval does not hold"
        for what, planned, those, same in asked
        if those and not same
    )
