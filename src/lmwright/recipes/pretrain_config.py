"""The four factors of a pretraining run: architecture, task, data, training. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from msgspec import Meta

from lmwright import seams
from lmwright.config import closest
from lmwright.errors import ConfigError
from lmwright.model.config import ModelConfig
from lmwright.train.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """objective: what the model learns to do, the name of a file in `objectives/`."""

    objective: str = "causal"

    def __post_init__(self) -> None:
        allowed = seams.names("lmwright.objectives")
        if self.objective not in allowed:  # only listed: importing one costs torch
            hint = closest(self.objective, allowed)
            raise ConfigError(f"objective = {self.objective!r}: there is none{hint}; there are {', '.join(allowed)}")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """corpus: directory of built shards. context_length: tokens in a sequence.

    packing: 'contiguous' cuts the stream into blocks; 'documents' fits whole documents into sequences, and
    attention never crosses from one into the next.
    """

    corpus: str
    context_length: Annotated[int, Meta(ge=2)]
    packing: Literal["contiguous", "documents"] = "contiguous"
    split: str = "train"
    validation_split: str = "validation"


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
