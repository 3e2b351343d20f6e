"""The batch: its rows, its targets, and that it holds what numpy gave it."""

from __future__ import annotations

import numpy as np
import torch

from lmwright.data.batch import Batch
from lmwright.data.pack import IGNORE_INDEX


def batch(segments=True):
    ids = np.arange(12).reshape(3, 4)
    labels = ids + 1
    labels[1, 2:] = IGNORE_INDEX
    extra = (ids * 0 + 2, ids * 0 + 1) if segments else (None, None)
    return Batch.of((ids, labels, *extra), (4, 9, 2))


def test_targets_are_the_labels_that_are_not_ignored():
    assert batch().num_targets() == 10


def test_rows_are_views_with_their_samples():
    whole = batch()
    part = whole.rows(1, 3)
    assert part.ids_BT.tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert part.labels_BT.data_ptr() == whole.labels_BT[1:].data_ptr()
    assert part.positions_BT.shape == part.segments_BT.shape == (2, 4)
    assert part.sample_ids == (9, 2)
    assert sum(whole.rows(n, n + 1).num_targets() for n in range(3)) == whole.num_targets()
    assert batch(segments=False).rows(0, 1).segments_BT is None


def test_to_moves_every_tensor():
    moved = batch().to("meta")
    for tensor in (moved.ids_BT, moved.labels_BT, moved.positions_BT, moved.segments_BT):
        assert tensor.device == torch.device("meta")
    assert batch(segments=False).to("meta").positions_BT is None
