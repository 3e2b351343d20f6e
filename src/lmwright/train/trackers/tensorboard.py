"""TensorBoard: event files below trackers/tensorboard in the run; `tensorboard --logdir runs` shows them.

A run that is resumed writes another file there, and TensorBoard hides what an earlier one holds of the steps that
are redone (purge_step). The configuration is in the HPARAMS tab.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmwright.train.trackers import hyperparameters, numbers
from lmwright.train.trackers._identity import folder

LIBRARY, WRITER = "tensorboard", "torch.utils.tensorboard"
FLUSH_SECONDS = 10


def open_tracker(run: Path, config: Mapping[str, Any]) -> TensorBoard:
    """Open the run's event files. Raises ImportError without tensorboard."""
    importlib.import_module(WRITER)  # here, so that what is missing is known before the first step
    return TensorBoard(folder(run, "tensorboard"), config)


class TensorBoard:
    """Writes scalars to an event file, which is begun at the first record: that says where the run stands."""

    def __init__(self, place: Path, config: Mapping[str, Any]) -> None:
        self._place = place
        self._config = config
        self._writer: Any = None

    def write(self, record: Mapping[str, Any]) -> None:
        """Write the numbers of a record at its step."""
        if self._writer is None:
            self._writer = self._begin(record["step"])
        for name, value in numbers(record).items():
            self._writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Write what is left and close the file."""
        if self._writer is not None:
            self._writer.close()

    def _begin(self, step: int) -> Any:
        library = importlib.import_module(WRITER)
        redone = step + 1 if step else None
        writer = library.SummaryWriter(str(self._place), purge_step=redone, flush_secs=FLUSH_SECONDS)
        for summary in library.summary.hparams(hyperparameters(self._config), {}):
            writer.file_writer.add_summary(summary)
        return writer
