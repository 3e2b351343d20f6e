"""AdamW against the published update written out in float64, and against torch.optim.AdamW unfused."""

from __future__ import annotations

import pytest
import torch

from lmwright.errors import CheckpointError
from lmwright.train.optimizers import adamw

SETTINGS = adamw.Settings(lr=1e-2, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.3)
RATES = [1e-2, 3e-2, 1e-3, 2e-2, 5e-3]


def make() -> dict[str, torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"matrix": (5, 7), "vector": (7,), "cube": (2, 3, 4)}
    return {name: torch.nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}


def give_gradients(parameters: dict[str, torch.nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(100 + step)
    for parameter in parameters.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_the_update_is_the_published_one_and_only_matrices_decay() -> None:
    parameters = make()
    expected = {name: parameter.detach().double().clone() for name, parameter in parameters.items()}
    moments = {name: (torch.zeros_like(value), torch.zeros_like(value)) for name, value in expected.items()}
    optimizer = adamw.build(parameters, SETTINGS)
    (b1, b2), eps = SETTINGS.betas, SETTINGS.eps
    for step, lr in enumerate(RATES):
        give_gradients(parameters, step)
        optimizer.step(lr / SETTINGS.lr)
        for name, value in expected.items():
            g = parameters[name].grad.double()
            m, v = moments[name]
            m.mul_(b1).add_((1 - b1) * g)
            v.mul_(b2).add_((1 - b2) * g * g)
            decay = 0.0 if name == "vector" else SETTINGS.weight_decay
            m_hat, v_hat = m / (1 - b1 ** (step + 1)), v / (1 - b2 ** (step + 1))
            value.sub_(lr * decay * value).sub_(lr * m_hat / (v_hat.sqrt() + eps))
    for name, value in expected.items():
        torch.testing.assert_close(parameters[name].detach().double(), value, rtol=2e-6, atol=2e-6)


def test_the_update_is_that_of_torch() -> None:
    ours, theirs = make(), make()
    optimizer = adamw.build(ours, SETTINGS)
    groups = [
        {"params": [theirs["matrix"], theirs["cube"]], "weight_decay": SETTINGS.weight_decay},
        {"params": [theirs["vector"]], "weight_decay": 0.0},
    ]
    peer = torch.optim.AdamW(groups, lr=SETTINGS.lr, betas=SETTINGS.betas, eps=SETTINGS.eps, foreach=False)
    for step, lr in enumerate(RATES):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        for group in peer.param_groups:
            group["lr"] = lr
        optimizer.step(lr / SETTINGS.lr)
        peer.step()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-6, atol=1e-6)


def test_a_saved_state_goes_on_to_the_bit() -> None:
    straight, broken = make(), make()
    one, two = adamw.build(straight, SETTINGS), adamw.build(broken, SETTINGS)
    for step, lr in enumerate(RATES):
        if step == 3:
            tensors = {name: tensor.clone() for name, tensor in two.tensors().items()}
            two = adamw.build(broken, SETTINGS)
            two.load(tensors)
        for parameters, optimizer in ((straight, one), (broken, two)):
            give_gradients(parameters, step)
            optimizer.step(lr / SETTINGS.lr)
    for name in straight:
        assert torch.equal(straight[name], broken[name])


def test_the_state_is_fp32_and_named_by_parameter() -> None:
    parameters = make()
    optimizer = adamw.build(parameters, SETTINGS)
    assert optimizer.tensors() == {}
    give_gradients(parameters, 0)
    optimizer.step(0.1)
    tensors = optimizer.tensors()
    assert set(tensors) == {f"{name}.{part}" for name in parameters for part in ("step", "exp_avg", "exp_avg_sq")}
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("matrix.exp_avg"), "matrix.exp_avg is missing"),
        (lambda tensors: tensors.update({"other.step": torch.ones(())}), "other.step belongs to no parameter"),
        (
            lambda tensors: tensors.update({"vector.exp_avg": torch.ones(8)}),
            r"shape \(8,\); for this parameter it must be \(7,\)",
        ),
    ],
)
def test_a_state_that_does_not_fit_is_refused(change: object, message: str) -> None:
    parameters = make()
    optimizer = adamw.build(parameters, SETTINGS)
    give_gradients(parameters, 0)
    optimizer.step(0.1)
    tensors = dict(optimizer.tensors())
    change(tensors)  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=message):
        adamw.build(make(), SETTINGS).load(tensors)
