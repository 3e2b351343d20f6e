"""What one training or evaluation step sees. B batch, T token.

Knows nothing of models or losses: `labels_BT` says which positions are scored, and against what.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lmwright.data.pack import IGNORE_INDEX

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lmwright.data.pack import Rows


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of tokens with their labels; all tensors int64.

    ids_BT: input ids. labels_BT: the id that each position is to predict (already shifted), IGNORE_INDEX where it
    is not scored. positions_BT: place of each token in its document, None for 0..T-1 in every row. segments_BT:
    document number in the row, -1 at padding, None for one document a row. sample_ids: numbers of
    the rows in their plan. continues: whether each row goes on where the same row of the batch before ended.
    """

    ids_BT: Tensor
    labels_BT: Tensor
    positions_BT: Tensor | None = None
    segments_BT: Tensor | None = None
    sample_ids: tuple[int, ...] = ()
    continues: bool = False

    def num_targets(self) -> int:
        """Return the number of scored positions."""
        return int((self.labels_BT != IGNORE_INDEX).sum())

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on a device."""
        return replace(
            self,
            ids_BT=self.ids_BT.to(device),
            labels_BT=self.labels_BT.to(device),
            positions_BT=None if self.positions_BT is None else self.positions_BT.to(device),
            segments_BT=None if self.segments_BT is None else self.segments_BT.to(device),
        )

    def rows(self, start: int, stop: int) -> Batch:
        """Return rows start..stop-1, as views: the micro-batches of a step."""
        return replace(
            self,
            ids_BT=self.ids_BT[start:stop],
            labels_BT=self.labels_BT[start:stop],
            positions_BT=None if self.positions_BT is None else self.positions_BT[start:stop],
            segments_BT=None if self.segments_BT is None else self.segments_BT[start:stop],
            sample_ids=self.sample_ids[start:stop],
        )

    @classmethod
    def of(cls, rows: Rows, sample_ids: tuple[int, ...] = (), *, continues: bool = False) -> Batch:
        """Wrap numpy rows (ids, labels, positions, segments) without copying."""
        ids, labels, positions, segments = rows
        return cls(
            ids_BT=torch.from_numpy(ids),
            labels_BT=torch.from_numpy(labels),
            positions_BT=_tensor(positions),
            segments_BT=_tensor(segments),
            sample_ids=sample_ids,
            continues=continues,
        )


def _tensor(array: NDArray[np.int64] | None) -> Tensor | None:
    return None if array is None else torch.from_numpy(array)
