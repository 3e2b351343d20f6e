"""The four factors of a pretraining run: architecture, task, data, training. Torch-free.

What a run file leaves out is filled in from the corpus (vocabulary, ends of text), the context (positions), the
family (its usual parts) and, last, from a small model that a laptop trains in minutes; the resolved configuration,
saved with the run, shows all of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from lmwright import seams
from lmwright.config import closest, convert, merge, refuse_unknown
from lmwright.data.build import Corpus
from lmwright.errors import ConfigError
from lmwright.model.config import ModelConfig, usual_ffn_size
from lmwright.scaling.shapes import parameter_shapes
from lmwright.train import groups
from lmwright.train.config import TrainConfig

SMALL = {
    "architecture": {"family": "llama", "hidden_size": 256, "num_layers": 4, "tie_embeddings": True},
    "data": {"context_length": 256},
    "training": {
        "steps": 500,
        "batch_size": 16,
        "optimizer": {"name": "adamw"},
        "schedule": {"name": "cosine"},
    },
}
HEAD_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """objective: what the model learns to do, the name of a file in `objectives/`.

    z_loss: weight of a penalty on the softmax's denominator, which keeps logits from drifting; 1e-4 is usual.
    """

    objective: str = "causal"
    z_loss: Annotated[float, Meta(ge=0)] = 0.0

    def __post_init__(self) -> None:
        allowed = seams.names("lmwright.objectives")
        if self.objective not in allowed:  # only listed: importing one costs torch
            hint = closest(self.objective, allowed)
            raise ConfigError(
                f"objective = {self.objective!r}: there is none{hint}; there are {', '.join(allowed)}"
            )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """corpus: directory of built shards. context_length: tokens in a sequence.

    packing: 'contiguous' cuts the stream into blocks; a recurrent model reads neighbouring ones update by update
    and goes on from its state (truncated backpropagation through time). 'documents' fits whole documents into
    sequences; attention never crosses from one into the next, and a recurrent model begins each with a state of
    zeros.
    """

    corpus: str
    context_length: Annotated[int, Meta(ge=2)]
    packing: Literal["contiguous", "documents"] = "contiguous"


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """One pretraining run."""

    architecture: ModelConfig
    task: TaskConfig = field(default_factory=TaskConfig)
    data: DataConfig
    training: TrainConfig

    def __post_init__(self) -> None:
        if self.data.context_length > self.architecture.max_positions:
            raise ConfigError(
                f"data.context_length = {self.data.context_length}: is longer than architecture.max_positions = "
                f"{self.architecture.max_positions}; raise that, or shorten the context"
            )
        # Refuses groups that find nothing, or leave nothing to train; the parts of the model come later.
        groups.assign(parameter_shapes(self.architecture), self.training.groups)


def resolve(given: Mapping[str, Any], where: str) -> PretrainConfig:
    """Complete and check the settings of a run.

    where: what is being read, for messages. Raises ConfigError that names the setting, DataError if the corpus
    cannot be opened.
    """
    refuse_unknown(given, PretrainConfig, where)  # `corpus` at the top level is told before a missing data.corpus
    settings = merge(SMALL, given)
    data = settings["data"]
    if not isinstance(data, dict) or not isinstance(data.get("corpus"), str) or not data["corpus"]:
        raise ConfigError(
            f"{where}: setting data.corpus is missing: the directory of a built corpus (--corpus DIR)"
        )
    if not isinstance(settings["architecture"], dict):
        raise ConfigError(f"{where}: architecture must be a table of settings")
    corpus = Corpus.open(Path(data["corpus"]))
    # Absolute, so that the run can be resumed from any directory.
    settings["data"] = {**data, "corpus": str(Path(data["corpus"]).absolute())}
    settings["architecture"] = _complete(settings["architecture"], data, corpus)
    config = checked(settings, where)
    if config.architecture.vocab_size < corpus.tokenizer.vocab_size:
        raise ConfigError(
            f"{where}: architecture.vocab_size = {config.architecture.vocab_size}: is smaller than the "
            f"{corpus.tokenizer.vocab_size} entries of the corpus's tokenizer; leave it out, or raise it"
        )
    return config


def checked(settings: Mapping[str, Any], where: str) -> PretrainConfig:
    """Build the configuration from complete settings. ConfigError names the key as a run file has it."""
    try:
        return convert(settings, PretrainConfig, where)
    except ConfigError as error:
        # A model knows itself as `model`, wherever its settings came from; here they are the architecture.
        raise ConfigError(re.sub(r"architecture(\.\w+)?: model\b", "architecture", str(error), count=1)) from None


def _complete(given: Mapping[str, Any], data: Mapping[str, Any], corpus: Corpus) -> dict[str, Any]:
    """Return the architecture with everything filled in that follows from the rest."""
    family = given["family"]
    usual = seams.load("lmwright.model.families", family).defaults() if isinstance(family, str) else {}
    found: dict[str, Any] = {
        "vocab_size": corpus.tokenizer.vocab_size,
        "max_positions": data["context_length"],
        "bos_id": corpus.tokenizer.bos_id,
        "eos_id": corpus.tokenizer.eos_id,
        **usual,
        **given,
    }
    width = found["hidden_size"]
    if isinstance(width, int):
        found.setdefault("num_heads", max(1, width // HEAD_SIZE))
        found.setdefault("ffn_size", usual_ffn_size(width, found.get("ffn", "swiglu")))
    return found
