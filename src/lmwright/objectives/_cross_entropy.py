"""Cross-entropy of hidden states against labels: the one definition, which training and evaluation share.

    nats = - sum over scored positions of log softmax(W h_t)[label_t]
    z    = weight x sum of (log sum exp(W h_t))^2              (Chowdhery et al. 2022, section 5)

Logits are taken in the precision of the hidden states, log-probabilities in fp32. Where a gradient is wanted, all
logits are one product: the fastest way, and its graph would be kept anyway. Elsewhere they are held for a few
positions at a time, and the sum is taken in fp64. Knows nothing of batches.
"""

# B batch, T query, D model, V vocab, N positions

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lmwright.data.pack import IGNORE_INDEX
from lmwright.model.context import Context
from lmwright.model.language_model import LanguageModel

# Logits of one slice at most: 64 MiB in fp32, however large the vocabulary.
LOGITS_AT_ONCE = 2**24


def summed_cross_entropy(
    model: LanguageModel, hidden_BTD: Tensor, labels_BT: Tensor, ctx: Context, *, z_loss: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return two scalars over the labels that are not IGNORE_INDEX: nats + z, to be minimised, and nats, detached.

    In fp32, the first with its graph, where gradients are enabled; in fp64 under `torch.no_grad()`.
    """
    hidden_ND, labels_N = hidden_BTD.flatten(0, 1), labels_BT.flatten()
    if torch.is_grad_enabled():
        logits_NV = model.logits(hidden_ND[None], ctx)[0].float()
        nats = F.cross_entropy(logits_NV, labels_N, ignore_index=IGNORE_INDEX, reduction="sum")
        if z_loss == 0.0:
            return nats, nats.detach()
        scored_N = labels_N != IGNORE_INDEX
        return nats + z_loss * (logits_NV.logsumexp(-1)[scored_N] ** 2).sum(), nats.detach()
    size = max(1, LOGITS_AT_ONCE // model.config.vocab_size)
    total = torch.zeros((), dtype=torch.float64, device=hidden_ND.device)
    for part_ND, part_N in zip(torch.split(hidden_ND, size), torch.split(labels_N, size), strict=True):
        total += _losses(model, part_ND, part_N, ctx).double().sum()
    return total, total


def _losses(model: LanguageModel, hidden_ND: Tensor, labels_N: Tensor, ctx: Context) -> Tensor:
    """Return losses_N in fp32; 0 where the label is ignored."""
    logits_NV = model.logits(hidden_ND[None], ctx)[0].float()
    return F.cross_entropy(logits_NV, labels_N, ignore_index=IGNORE_INDEX, reduction="none")
