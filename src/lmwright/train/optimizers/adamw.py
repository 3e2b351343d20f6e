"""AdamW (Loshchilov & Hutter 2019, algorithm 2): Adam with the weight decay decoupled from the gradient.

    m <- b1 m + (1 - b1) g;   v <- b2 v + (1 - b2) g^2
    w <- w - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) - lr decay w

Only matrices decay (embeddings among them); vectors - biases and norm gains - do not. The update itself is
PyTorch's fused kernel, one pass over memory; the state is fp32, as the parameters are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from lmwright.errors import CheckpointError
from lmwright.train.groups import GroupConfig, assign

if TYPE_CHECKING:
    import torch

_PARTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """lr: peak learning rate. betas: decay of the two moments. weight_decay: on matrices only."""

    lr: Annotated[float, Meta(gt=0)] = 1e-3
    betas: tuple[Annotated[float, Meta(ge=0, lt=1)], Annotated[float, Meta(ge=0, lt=1)]] = (0.9, 0.95)
    eps: Annotated[float, Meta(gt=0)] = 1e-8
    weight_decay: Annotated[float, Meta(ge=0)] = 0.1


def build(
    parameters: Mapping[str, torch.nn.Parameter], settings: Settings, groups: Sequence[GroupConfig] = ()
) -> AdamW:
    """Return AdamW over the named parameters."""
    return AdamW(parameters, settings, groups)


class AdamW:
    """AdamW over named parameters, its state readable as named tensors."""

    def __init__(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        settings: Settings,
        groups: Sequence[GroupConfig] = (),
    ) -> None:
        import torch

        self._parameters = dict(parameters)
        alike: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        for name, group in assign(self._parameters, groups).items():
            parameter = self._parameters[name]
            usual = settings.weight_decay if parameter.dim() >= 2 else 0.0
            decay = usual if group.weight_decay is None else group.weight_decay
            alike.setdefault((settings.lr * group.lr, decay), []).append(parameter)
        self._optimizer = torch.optim.AdamW(
            [{"params": them, "peak": peak, "weight_decay": decay} for (peak, decay), them in alike.items()],
            betas=settings.betas,
            eps=settings.eps,
            fused=True,
        )

    def step(self, factor: float) -> None:
        """Update every parameter that has a gradient, at `factor` times its peak rate."""
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        self._optimizer.step()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the state: NAME.step, NAME.exp_avg and NAME.exp_avg_sq for each parameter updated so far."""
        state = self._optimizer.state
        return {
            f"{name}.{part}": state[parameter][part]
            for name, parameter in self._parameters.items()
            if parameter in state
            for part in _PARTS
        }

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what `tensors()` returned. CheckpointError for a missing, foreign or ill-shaped tensor."""
        expected = {f"{name}.{part}" for name in self._parameters for part in _PARTS}
        if foreign := sorted(set(tensors) - expected):
            raise CheckpointError(f"optimiser state: {foreign[0]} belongs to no parameter of this model")
        names = {name.rsplit(".", 1)[0] for name in tensors}
        for name in sorted(names):
            self._optimizer.state[self._parameters[name]] = self._state_of(name, tensors)

    def _state_of(self, name: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        parameter = self._parameters[name]
        state = {}
        for part in _PARTS:
            tensor = tensors.get(f"{name}.{part}")
            if tensor is None:
                raise CheckpointError(f"optimiser state: {name}.{part} is missing")
            allowed = () if part == "step" else tuple(parameter.shape)
            if tuple(tensor.shape) != allowed:
                raise CheckpointError(
                    f"optimiser state: {name}.{part} has shape {tuple(tensor.shape)}; "
                    f"for this parameter it must be {allowed}"
                )
            # A fresh copy: a file-backed tensor may be aligned otherwise, and alignment decides the last bits.
            state[part] = tensor.detach().clone().to(parameter.device)
        return state
