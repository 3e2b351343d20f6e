"""Weights & Biases: the project is WANDB_PROJECT, or lmwright; files lie below trackers/wandb in the run.

A run that is resumed goes on under its id. Steps that it redoes, and the server has, are not sent again: they are
the same. Offline (WANDB_MODE=offline) nothing tells which the server has, and they are kept twice. Standard output
is left alone.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmwright.train.trackers import hyperparameters, numbers
from lmwright.train.trackers._identity import PROJECT, folder, identity

LIBRARY = "wandb"


def open_tracker(run: Path, config: Mapping[str, Any]) -> WeightsAndBiases:
    """Begin the run at Weights & Biases, or go on with it. Raises what wandb does without a login or a network."""
    wandb = importlib.import_module(LIBRARY)
    handle = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        id=identity(run, "wandb"),
        name=run.resolve().name,
        dir=str(folder(run, "wandb")),
        config=hyperparameters(config),
        allow_val_change=True,  # of a corpus that was moved
        resume="allow",
        reinit="create_new",
        settings=wandb.Settings(console="off"),
    )
    return WeightsAndBiases(handle)


class WeightsAndBiases:
    """Sends the numbers of each record. handle: of the run, as `wandb.init` gives it."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._first = handle.step  # the server has those before it

    def write(self, record: Mapping[str, Any]) -> None:
        """Send the numbers of a record at its step, unless the server has that step."""
        found = numbers(record)
        if found and record["step"] >= self._first:
            self._handle.log(found, step=record["step"])

    def close(self) -> None:
        """Send what is left and end the run."""
        self._handle.finish()
