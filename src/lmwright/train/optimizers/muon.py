"""Muon: momentum, orthogonalised, for the matrices inside the blocks; AdamW for everything else.

    m <- b m + (1 - b) g;   u = b m + (1 - b) g  (Nesterov; else u = m)
    w <- w - lr 0.2 sqrt(max(rows, columns)) orthogonalise(u) - lr decay w

Jordan et al. 2024 (kellerjordan.github.io/posts/muon), scaled by Liu et al. 2025 (Muon is Scalable for LLM
Training, arXiv:2502.16982, section 2.2): an orthogonal matrix has entries of root mean square
1/sqrt(max(rows, columns)), and with the factor an update has 0.2, as AdamW's has in practice. So one rate and one
decay serve both parts, and AdamW's part takes Muon's rate unless it is given its own:

    [training.optimizer]
    name = "muon"
    lr = 2e-3
    [training.optimizer.adamw]
    weight_decay = 0.0

Does not know how weights are multiplied: a matrix whose rows are heads is orthogonalised as one.
"""

# N matrices, R rows, C columns

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from lmwright.scaling.memory import OptimizerBytes
from lmwright.scaling.shapes import Shape
from lmwright.train.groups import GroupConfig, assign
from lmwright.train.optimizers import adamw
from lmwright.train.optimizers._shared import STEP, named, state_bytes, taken

if TYPE_CHECKING:
    import torch

_PARTS = (STEP, "momentum")
_RMS = 0.2
_QUINTIC = (3.4445, -4.7750, 2.0315)
# Matrices of one shape are orthogonalised together up to so many bytes of fp32: all of a small model, which spares
# launches, and four of 4096 x 4096, of which each by itself fills a device.
BATCH_BYTES = 2**28
_NOT_HIDDEN = re.compile(r"(^|\.)(embed\w*|\w*head|score|classifier)\.")


@dataclass(frozen=True, kw_only=True)
class Others(adamw.Moments):
    """AdamW's settings for embeddings, head and vectors. lr: peak learning rate; None is Muon's."""

    lr: Annotated[float, Meta(gt=0)] | None = None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """lr: peak learning rate. weight_decay: of the hidden matrices. steps: of the iteration that orthogonalises.
    adamw: for all other parameters.
    """

    lr: Annotated[float, Meta(gt=0)] = 1e-3
    momentum: Annotated[float, Meta(ge=0, lt=1)] = 0.95
    nesterov: bool = True
    weight_decay: Annotated[float, Meta(ge=0)] = 0.1
    steps: Annotated[int, Meta(ge=1, le=20)] = 5
    adamw: Others = field(default_factory=Others)


def build(
    parameters: Mapping[str, torch.nn.Parameter], settings: Settings, groups: Sequence[GroupConfig] = ()
) -> Muon:
    """Return Muon over the named parameters."""
    return Muon(parameters, settings, assign(parameters, groups))


def memory(shapes: Mapping[str, Shape], settings: Settings) -> OptimizerBytes:
    """Return a momentum of each hidden matrix and AdamW's state of the others; a step takes its largest batch.

    A batch takes 4 N (3 R C + 2 S^2 + 1) bytes, S the shorter side: itself, two steps of the iteration, the Gram
    matrix and its polynomial, and norms, in fp32; products in bf16 take less. Under fsdp each process gathers and
    orthogonalises every matrix.
    """
    hidden = {name: shape for name, shape in shapes.items() if is_hidden(name, shape)}
    rest = {name: shape for name, shape in shapes.items() if name not in hidden}
    state = (
        sum(state_bytes(shape, _PARTS) for shape in hidden.values()) + adamw.memory(rest, adamw.Settings()).state
    )
    counts = Counter(hidden.values())
    sizes = [
        4 * min(count, at_once(shape)) * (3 * math.prod(shape) + 2 * min(shape) ** 2 + 1)
        for shape, count in counts.items()
    ]
    return OptimizerBytes(
        state=state,
        workspace=max(sizes, default=0),
        gathered=4 * sum(math.prod(shape) for shape in hidden.values()),
    )


def at_once(shape: Shape) -> int:
    """Return how many matrices of a shape are orthogonalised as one batch.

    It depends on the shape alone, for the last bits of a product may depend on the batch.
    """
    return max(1, BATCH_BYTES // (4 * math.prod(shape)))


def is_hidden(name: str, shape: Sequence[int]) -> bool:
    """Return whether a parameter is a matrix that maps hidden states to hidden states.

    By shape: it has two dimensions. By name: it ends in .weight, so it is multiplied with, and no part of the name
    says embedding, head or classifier. A tied head is the embedding.
    """
    return len(shape) == 2 and name.endswith(".weight") and not _NOT_HIDDEN.search(name)


class Muon:
    """Muon over the hidden matrices among named parameters, AdamW over the others; one state, one step."""

    def __init__(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        settings: Settings,
        group_of: Mapping[str, GroupConfig],
    ) -> None:
        self.rate = 0.0
        self._settings = settings
        self._matrices = {name: this for name, this in parameters.items() if is_hidden(name, this.shape)}
        self._state: dict[str, dict[str, torch.Tensor]] = {}
        alike: dict[tuple[float, float, Shape], list[str]] = {}
        for name, matrix in sorted(self._matrices.items()):
            rates = group_of[name].rates(settings.lr, settings.weight_decay)
            alike.setdefault((*rates, tuple(matrix.shape)), []).append(name)
        self._batches = [
            (peak, decay, names[start : start + at_once(shape)])
            for (peak, decay, shape), names in alike.items()
            for start in range(0, len(names), at_once(shape))
        ]
        rest = {name: this for name, this in parameters.items() if name not in self._matrices}
        self._others = adamw.AdamW(
            rest, adamw.Settings(**asdict(settings.adamw) | {"lr": settings.adamw.lr or settings.lr}), group_of
        )

    def step(self, factor: float) -> None:
        """Update every parameter that has a gradient, at `factor` times its peak rate."""
        self.rate = self._settings.lr * factor
        self._others.step(factor)
        for peak, decay, names in self._batches:
            if given := [name for name in names if self._matrices[name].grad is not None]:
                self._update(given, peak * factor, decay)

    def _update(self, names: Sequence[str], lr: float, decay: float) -> None:
        """Update matrices of one shape as one batch."""
        import torch

        from lmwright.train.sharded import shard_as

        with torch.no_grad():
            matrices: list[torch.Tensor] = [self._matrices[name] for name in names]
            # Every process of a sharded model orthogonalises every matrix, and keeps its own rows of the result.
            update_NRC = orthogonalise(self._directions(names), self._settings.steps)
            parts = [shard_as(matrix, full) for matrix, full in zip(matrices, update_NRC, strict=True)]
            torch._foreach_mul_(matrices, 1 - lr * decay)
            torch._foreach_add_(matrices, parts, alpha=-lr * _RMS * math.sqrt(max(update_NRC.shape[1:])))

    def _directions(self, names: Sequence[str]) -> torch.Tensor:
        """Take the gradients into the momenta and return [N, R, C], whole: what is to be orthogonalised."""
        import torch

        from lmwright.train.sharded import whole

        momenta = [self._count(name)["momentum"] for name in names]
        gradients = [grad for name in names if (grad := self._matrices[name].grad) is not None]
        beta = self._settings.momentum
        torch._foreach_lerp_(momenta, gradients, 1 - beta)
        updates = momenta
        if self._settings.nesterov:
            updates = [gradient.clone() for gradient in gradients]  # torch 2.11 cannot lerp parts out of place
            torch._foreach_lerp_(updates, momenta, beta)
        return torch.stack([whole(update) for update in updates])

    def _count(self, name: str) -> dict[str, torch.Tensor]:
        """Return the state of a matrix, made if this is its first update, with this update counted.

        The count is for `load`: with one tensor a matrix, a lost one would look like a matrix never updated.
        """
        import torch

        if name not in self._state:
            self._state[name] = {STEP: torch.zeros(()), "momentum": torch.zeros_like(self._matrices[name])}
        self._state[name][STEP] += 1
        return self._state[name]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the state: NAME.step and NAME.momentum for each matrix updated so far, and AdamW's."""
        return named(self._state) | self._others.tensors()

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what `tensors()` returned. CheckpointError for a missing, foreign or ill-shaped tensor."""
        own = {key: tensor for key, tensor in tensors.items() if key.rpartition(".")[0] in self._matrices}
        self._state = taken(own, self._matrices, _PARTS)
        self._others.load({key: tensor for key, tensor in tensors.items() if key not in own})


def orthogonalise(x_NRC: torch.Tensor, steps: int, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Return [N, R, C] in x's dtype: the same singular vectors, with all singular values near 1.

    A matrix divided by its Frobenius norm goes `steps` times through X <- aX + (bA + cA^2)X, A = XX^T, an odd
    polynomial of its singular values (Jordan et al. 2024). Five steps bring those from 0.0015 to 1 into
    [0.679, 1.203], from 0.01 on into [0.681, 1.135]; smaller ones stay smaller, and zeros stay zero.
    dtype: of the products; None is bf16 where the device multiplies it natively, which moves the bounds by 0.01.
    """
    import torch

    from lmwright.train.precision import DTYPES, resolve

    if dtype is None:
        dtype = DTYPES[resolve("auto", "cuda" if x_NRC.is_cuda else "cpu")]
    a, b, c = _QUINTIC
    tall = x_NRC.shape[1] > x_NRC.shape[2]
    wide_NRC = x_NRC.mT if tall else x_NRC  # the Gram matrix of the shorter side is the smaller one
    norm_N11 = torch.linalg.matrix_norm(wide_NRC, keepdim=True).clamp_min(1e-7)
    y_NRC = (wide_NRC / norm_N11).to(dtype).contiguous()
    for _ in range(steps):
        gram_NRR = torch.bmm(y_NRC, y_NRC.mT)
        polynomial_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=b, alpha=c)
        y_NRC = torch.baddbmm(y_NRC, polynomial_NRR, y_NRC, beta=a)
    done_NRC: torch.Tensor = y_NRC.to(x_NRC.dtype)
    return done_NRC.mT if tall else done_NRC
