"""What is trained within a budget, once a law has said how large a model it wants: context, model, batch, memory.

Each choice is said with its reason. Torch-free. Knows nothing of laws and of losses.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from lmwright.config import merge
from lmwright.data.build import Corpus
from lmwright.errors import ConfigError
from lmwright.model.config import ModelConfig
from lmwright.recipes import memory_plan
from lmwright.recipes.budget_basis import Speed
from lmwright.recipes.memory_plan import MemoryPlan
from lmwright.scaling.flops import Convention, count_parameters
from lmwright.scaling.planning import budget, hyper, shape
from lmwright.scaling.planning.hyper import Settings

# Tokens in a sequence by FLOPs: short ones where a model is too small to use more.
CONTEXTS = ((1e17, 256), (1e19, 512), (1e21, 1024), (math.inf, 2048))
FEWEST_SEQUENCES, SHORTEST = 64, 16  # that the text is cut into, and tokens in one
# Tokens of a micro-batch: enough for full speed, little enough for the logits of a large vocabulary.
AT_ONCE = 8192
GROWTH, TRIES = 1.25, 120
OPTIMIZER = "adamw"  # the one that all rules are for
SCHEDULE = hyper.schedule(0)["name"]


def context(given: int | None, flops: float, unique: int, reasons: dict[str, str]) -> int:
    """Return the tokens of a sequence."""
    if given is not None:
        reasons["context"] = "as given"
        return given
    length = next(length for most, length in CONTEXTS if flops <= most)
    reasons["context"] = f"usual for {flops:.2g} FLOPs; larger models use more"
    while length > SHORTEST and unique // length < FEWEST_SEQUENCES:
        length //= 2
        reasons["context"] = f"so short that {unique:,} tokens are {FEWEST_SEQUENCES} sequences or more"
    return length


def shaped(
    wanted: float, vocab: int, length: int, convention: Convention, family: str
) -> tuple[ModelConfig, str, tuple[str, ...]]:
    """Return the model of the size that the law wants, why, and a warning where the smallest there is has more."""

    def make(size: float) -> shape.Shaped:
        return shape.shape(
            size, vocab_size=vocab, length=length, convention=convention, family=family, tie_embeddings=True
        )

    try:
        found = make(wanted)
        return found.config, found.reason, ()
    except ConfigError as error:
        first = error
    for power in range(1, TRIES):
        try:
            found = make(wanted * GROWTH**power)
        except ConfigError:
            continue
        warning = (
            f"the law wants {wanted:,.0f} parameters, fewer than the smallest model with this vocabulary has; a "
            "larger budget or a smaller vocabulary would be better spent"
        )
        return found.config, f"{found.parameters:,} parameters, the smallest there are", (warning,)
    raise first


def described(model: ModelConfig) -> str:
    """Return a model that was given, in words."""
    return (
        f"{count_parameters(model).total:,} parameters: {model.family} of width {model.hidden_size} by "
        f"{model.num_layers} layers, as the settings say"
    )


def within(chosen: Settings, model: ModelConfig, tokens: float, sequences: int, length: int) -> Settings:
    """Lower the batch to the sequences that the text has, and what goes with it; and keep one step."""
    size = min(chosen.batch_size, max(1, sequences))
    reasons = {"steps": f"{tokens:.4g} tokens by {size * length:,} in an update, rounded down"}
    if size < chosen.batch_size:
        text = f"{chosen.reasons['batch_size']}, lowered to {size}: the text has no more sequences"
        reasons["batch_size"] = text
    steps = max(1, int(tokens // (size * length)))
    return hyper.moved(chosen, model, length, batch_size=size, steps=steps, reasons=reasons)


def micro_batch(batch: int, length: int, reasons: dict[str, str]) -> int:
    """Return the most sequences at once that divide the batch and have no more than AT_ONCE tokens."""
    most = max(1, AT_ONCE // length)
    size = next(size for size in range(min(batch, most), 0, -1) if batch % size == 0)
    reasons["micro_batch_size"] = f"of {batch} sequences, at most {AT_ONCE:,} tokens at once, to spare memory"
    return size


def memory(
    corpus: Corpus,
    money: budget.Budget,
    speed: Speed | None,
    model: ModelConfig,
    chosen: Settings,
    micro: int,
    length: int,
) -> MemoryPlan:
    """Return the memory of a step: on this machine, or on each of the budget's devices.

    Where the batch has fewer sequences than there are devices, each is reckoned with one (see `idle`).
    """
    devices = money.devices
    settings = replace(chosen, batch_size=max(chosen.batch_size, devices))
    kind: dict[str, Any] = {"device": "cuda", "precision": "bf16", "parallel": "fsdp" if devices > 1 else "ddp"}
    if speed is not None:
        kind = {"device": speed.device, "precision": speed.precision}
    share = max(1, min(micro, math.ceil(settings.batch_size / devices)))
    run = merge(tree(model, settings, share, length, corpus), {"training": kind})
    return memory_plan.plan(memory_plan.describe(run, "plan", devices=devices), devices=devices)


def idle(batch: int, devices: int) -> tuple[str, ...]:
    """Return a warning where the batch has fewer sequences than there are devices, so that no such run begins."""
    if batch >= devices:
        return ()
    return (
        f"the batch has {batch:,} sequences for {devices:,} devices, and each needs at least one: such a run is "
        f"refused; plan with at most {batch:,} devices and a longer time, or with more text",
    )


def tree(model: ModelConfig, chosen: Settings, micro: int, length: int, corpus: Corpus) -> dict[str, Any]:
    """Return what was chosen as the settings of `lmwright pretrain`."""
    names = ("family", "hidden_size", "num_layers", "num_heads", "ffn_size", "tie_embeddings", "initializer_range")
    optimizer = {"name": OPTIMIZER, "lr": chosen.learning_rate, "weight_decay": chosen.weight_decay}
    return {
        "architecture": {name: getattr(model, name) for name in names},
        "data": {"corpus": str(corpus.directory), "context_length": length},
        "training": {
            "steps": chosen.steps,
            "batch_size": chosen.batch_size,
            "micro_batch_size": micro,
            "optimizer": optimizer,
            "schedule": hyper.schedule(chosen.warmup_steps),
        },
    }
