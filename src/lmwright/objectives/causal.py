"""Autoregressive language modelling: each token is predicted from those before it.

    loss = - sum_t log p(x_{t+1} | x_1 .. x_t)      (Bengio et al. 2003, equation 1), in nats

The labels come shifted with the batch; a position whose label is IGNORE_INDEX is not scored and has no gradient.
"""

# B batch, T query, D model, V vocab, N scored positions

from __future__ import annotations

import torch
import torch.nn.functional as F

from lmwright.data.batch import IGNORE_INDEX, Batch
from lmwright.model.context import Context
from lmwright.model.language_model import LanguageModel
from lmwright.objectives import LossOutput


def loss(model: LanguageModel, batch: Batch, ctx: Context) -> LossOutput:
    """Return the summed cross-entropy of the batch's labels in nats; the softmax is taken in fp32."""
    hidden_BTD = model(batch.ids_BT, ctx)
    logits_BTV = model.logits(hidden_BTD)
    total = F.cross_entropy(
        logits_BTV.flatten(0, 1).to(torch.float32),
        batch.labels_BT.flatten(),
        ignore_index=IGNORE_INDEX,
        reduction="sum",
    )
    return LossOutput(sum=total, count=batch.num_targets())
