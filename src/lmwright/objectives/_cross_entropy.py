"""Cross-entropy of hidden states against labels: the one definition, which training and evaluation share.

    nats = - sum over scored positions of log softmax(W h_t)[label_t]
    z    = weight x sum of (log sum exp(W h_t))^2              (Chowdhery et al. 2022, section 5)

The logits of a whole batch never exist: positions go through in chunks, and positions that are not scored not at
all. In training the chunk that has its loss gets its gradient at once, in place,

    d(nats + z) / d logits = softmax x (1 + 2 weight log sum exp) - onehot(label)

and from it those of the hidden states and of W, so nothing is computed twice, and what is kept for the backward
pass is two gradients (Liger, Hsu et al. 2024, does this on GPUs). Logits are taken in the precision of the hidden
states, all else is fp32, evaluation's sum fp64. Knows nothing of batches.
"""

# B batch, T query, D model, V vocab, N positions, C positions of a chunk, R rows of a group

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from lmwright.data.pack import IGNORE_INDEX
from lmwright.model.context import Context
from lmwright.model.language_model import LanguageModel
from lmwright.model.norm import widen

# Positions of a chunk. Each chunk adds once to the gradient of W, which costs as much as the products of some
# positions; a large chunk leaves the cache. On an AMX core in bf16, 2048 positions of a vocabulary of 49k take
# 1.00 s in chunks of 256, 0.70 s of 1024 and 0.74 s at once (the plain loss 0.96 s); 4096 positions of one of 4096
# take 76, 68 and 72 ms (111 ms). Not measured on a GPU, which wants few launches.
CHUNK = {"cpu": 1024, "cuda": 8192}
# Logits of a chunk at most, however large the vocabulary: 256 MiB in fp32 on a CPU.
LOGITS_AT_ONCE = {"cpu": 2**26, "cuda": 2**29}
# Logits whose fp32 copies exist at once: 1 MiB, which stays in a core's cache while the softmax passes over it
# (59 ms instead of 77 ms with all rows at once, V = 4096).
GROUP = {"cpu": 2**18, "cuda": 2**26}


def summed_cross_entropy(
    model: LanguageModel, hidden_BTD: Tensor, labels_BT: Tensor, ctx: Context, *, z_loss: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return two scalars over the labels that are not IGNORE_INDEX: nats + z, to be minimised, and nats, detached.

    In fp32, the first with its graph, where the call computes gradients (not gradients of gradients); else nats
    twice, in fp64.
    """
    hidden_ND, labels_N = hidden_BTD.flatten(0, 1), labels_BT.flatten()
    if torch.is_grad_enabled() and ctx.gradients:
        return _WithGradients.apply(hidden_ND, model.head_weight, labels_N, z_loss)  # type: ignore[no-any-return, no-untyped-call]
    total = torch.zeros((), dtype=torch.float64, device=hidden_ND.device)
    with torch.no_grad():
        for places_C in _chunks(labels_N, model.config.vocab_size):
            total += _summed_nats_(model.logits(hidden_ND[places_C][None], ctx)[0], labels_N[places_C])
    return total, total


class _WithGradients(torch.autograd.Function):
    """(hidden_ND, weight_VD, labels_N, z_loss) -> (nats + z, nats)."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor, z_loss: float
    ) -> tuple[Tensor, Tensor]:
        cast_VD = weight_VD.to(hidden_ND.dtype)
        for_hidden, for_weight = ctx.needs_input_grad[:2]
        dhidden_ND = torch.zeros_like(hidden_ND) if for_hidden else None
        dweight_VD = torch.zeros_like(widen(weight_VD)) if for_weight else None
        total = penalty = hidden_ND.new_zeros((), dtype=widen(hidden_ND[:0]).dtype)
        for places_C in _chunks(labels_N, len(weight_VD)):
            hidden_CD = hidden_ND[places_C]
            logits_CV = F.linear(hidden_CD, cast_VD)
            nats_C, log_sum_C = _to_gradient_(logits_CV, labels_N[places_C], z_loss)
            total, penalty = total + nats_C.sum(), penalty + z_loss * (log_sum_C**2).sum()
            if dhidden_ND is not None:
                dhidden_ND[places_C] = logits_CV @ cast_VD
            if dweight_VD is not None:
                _add_product_(dweight_VD, logits_CV, hidden_CD)
            del logits_CV  # or the next chunk's would be made beside them
        ctx.save_for_backward(dhidden_ND, None if dweight_VD is None else dweight_VD.to(weight_VD.dtype))
        ctx.mark_non_differentiable(total)
        return total + penalty, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        gradients = ctx.saved_tensors
        if grads[0] != 1.0:  # a product would be a second copy of them
            gradients = tuple(None if gradient is None else gradient * grads[0] for gradient in gradients)
        return (*gradients, None, None)


def _chunks(labels_N: Tensor, vocab_size: int) -> tuple[Tensor, ...]:
    """Places of the scored positions, in order, a chunk at a time; one empty chunk if there are none."""
    kind = labels_N.device.type
    size = max(1, min(CHUNK[kind], LOGITS_AT_ONCE[kind] // vocab_size))
    return torch.split((labels_N != IGNORE_INDEX).nonzero()[:, 0], size)


def _groups(logits_CV: Tensor, labels_C: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Views of some rows of a chunk and their labels."""
    size = max(1, GROUP[logits_CV.device.type] // logits_CV.shape[1])
    return zip(torch.split(logits_CV, size), torch.split(labels_C, size), strict=True)


def _softmax_(logits_RV: Tensor, labels_R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Turn wide logits into exp(logits - their maximum), in place; return nats_R, log_sum_R and sums_R1."""
    label_R1 = logits_RV.gather(1, labels_R[:, None])
    top_R1 = logits_RV.amax(1, keepdim=True)
    sums_R1 = logits_RV.sub_(top_R1).exp_().sum(1, keepdim=True)
    log_sum_R1 = sums_R1.log() + top_R1
    return (log_sum_R1 - label_R1)[:, 0], log_sum_R1[:, 0], sums_R1


def _summed_nats_(logits_CV: Tensor, labels_C: Tensor) -> Tensor:
    """Return the sum in fp64; the logits are used up."""
    groups = (_softmax_(widen(logits_RV), labels_R)[0] for logits_RV, labels_R in _groups(logits_CV, labels_C))
    return torch.cat(list(groups)).double().sum()


def _to_gradient_(logits_CV: Tensor, labels_C: Tensor, z_loss: float) -> tuple[Tensor, Tensor]:
    """Turn logits into the gradient of nats + z by them, in place; return nats_C and log_sum_C."""
    nats, log_sums = [], []
    for logits_RV, labels_R in _groups(logits_CV, labels_C):
        wide_RV = widen(logits_RV)  # themselves, where they are wide
        nats_R, log_sum_R, sums_R1 = _softmax_(wide_RV, labels_R)
        wide_RV.mul_((1.0 + 2.0 * z_loss * log_sum_R[:, None]) / sums_R1)
        # In fp32, before rounding: a label's share near 1 leaves a gradient that bf16 would lose.
        wide_RV.scatter_add_(1, labels_R[:, None], wide_RV.new_full((len(labels_R), 1), -1.0))
        if wide_RV is not logits_RV:
            logits_RV.copy_(wide_RV)
        nats.append(nats_R)
        log_sums.append(log_sum_R)
    return torch.cat(nats), torch.cat(log_sums)


def _add_product_(total_VD: Tensor, dlogits_CV: Tensor, hidden_CD: Tensor) -> None:
    """total += dlogits^T hidden; the product is in the chunk's precision, the sum in fp32 or wider."""
    if total_VD.dtype == hidden_CD.dtype:
        total_VD.addmm_(dlogits_CV.t(), hidden_CD)
        return
    # Group by group: added as a whole, the product would first be copied in fp32.
    size = max(1, GROUP[total_VD.device.type] // total_VD.shape[1])
    for total_RD, product_RD in zip(
        torch.split(total_VD, size), torch.split(dlogits_CV.t() @ hidden_CD, size), strict=True
    ):
        total_RD.add_(product_RD)
