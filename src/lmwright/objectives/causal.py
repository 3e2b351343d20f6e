"""Autoregressive language modelling: each token is predicted from those before it.

    loss = - sum_t log p(x_{t+1} | x_1 .. x_t)      (Bengio et al. 2003, equation 1), in nats

The labels come shifted with the batch; a position whose label is IGNORE_INDEX is not scored and has no gradient.
"""

# B batch, T query, D model

from __future__ import annotations

import torch

from lmwright.data.batch import Batch
from lmwright.model.context import Context
from lmwright.model.language_model import LanguageModel
from lmwright.objectives import LossOutput
from lmwright.objectives._cross_entropy import summed_cross_entropy


def loss(model: LanguageModel, batch: Batch, ctx: Context, *, z_loss: float = 0.0) -> LossOutput:
    """Return the summed cross-entropy of the batch's labels in nats; the softmax is taken in fp32."""
    hidden_BTD = model(batch.ids_BT, ctx)
    total, nats = summed_cross_entropy(model, hidden_BTD, batch.labels_BT, ctx, z_loss=z_loss)
    return LossOutput(sum=total.to(torch.float32), nats=nats.to(torch.float32), count=batch.num_targets())
