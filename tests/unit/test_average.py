"""The average of the weights against its closed form, and the exchange with the weights to the bit."""

from __future__ import annotations

import pytest
import torch

from lmwright.errors import CheckpointError
from lmwright.train.average import WeightAverage

SHAPES = {"matrix": (5, 7), "vector": (3,), "scalar": ()}


def make(seed: int = 1) -> dict[str, torch.nn.Parameter]:
    random = torch.Generator().manual_seed(seed)
    return {name: torch.nn.Parameter(torch.randn(shape, generator=random)) for name, shape in SHAPES.items()}


def move(parameters: dict[str, torch.nn.Parameter], step: int) -> None:
    random = torch.Generator().manual_seed(100 + step)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(torch.randn(parameter.shape, generator=random))


def followed(decay: float, steps: int) -> tuple[dict[str, torch.nn.Parameter], WeightAverage]:
    parameters = make()
    average = WeightAverage(parameters, decay)
    for step in range(steps):
        move(parameters, step)
        average.update()
    return parameters, average


@pytest.mark.parametrize(("decay", "steps"), [(0.5, 40), (0.999, 40), (0.05, 3)])
def test_it_is_the_weighted_sum_of_all_weights_seen(decay: float, steps: int) -> None:
    """average_n = sum over j of w_j (1 - d_j) prod of d_i for i > j, and the start weighs prod of all d."""
    decays = [min(decay, (1 + t) / (10 + t)) for t in range(steps)]
    parameters = make()
    average = WeightAverage(parameters, decay)
    seen = [{name: weight.detach().double().clone() for name, weight in parameters.items()}]
    for step in range(steps):
        move(parameters, step)
        average.update()
        seen.append({name: weight.detach().double().clone() for name, weight in parameters.items()})
    shares = [1.0, *(1 - d for d in decays)]
    for number, later in enumerate(decays, start=1):
        shares[:number] = [share * later for share in shares[:number]]
    assert sum(shares) == pytest.approx(1.0)
    for name, tensor in average.tensors().items():
        expected = sum(share * weights[name] for share, weights in zip(shares, seen, strict=True))
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-5, atol=1e-5)
        assert tensor.dtype == torch.float32
    assert average.updates == steps


def test_weights_that_stand_still_are_reached() -> None:
    parameters = make()
    average = WeightAverage(parameters, 0.9)
    start = {name: tensor.clone() for name, tensor in average.tensors().items()}
    move(parameters, 0)
    still = {name: weight.detach().clone() for name, weight in parameters.items()}
    for _ in range(300):
        average.update()
    for name, tensor in average.tensors().items():
        torch.testing.assert_close(tensor, still[name], rtol=1e-6, atol=1e-6)
        assert not torch.equal(start[name], still[name])


def test_weights_in_bf16_have_an_average_in_fp32_that_moves_by_less_than_they_can() -> None:
    weight = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    average = WeightAverage({"w": weight}, 0.999)
    average.updates = 100_000  # past the warm-up
    with torch.no_grad():
        weight.fill_(1.0078125)
    average.update()
    torch.testing.assert_close(average.tensors()["w"], torch.full((4,), 1 + 0.0078125 / 1000), rtol=1e-7, atol=0)
    with average.applied():
        assert weight.dtype == torch.bfloat16
    assert torch.equal(weight.detach(), torch.full((4,), 1.0078125, dtype=torch.bfloat16))


@pytest.mark.parametrize("fails", [False, True])
def test_the_averages_are_put_in_and_the_weights_back_to_the_bit(fails: bool) -> None:
    parameters, average = followed(0.9, 5)
    own = {name: weight.detach().clone() for name, weight in parameters.items()}
    held = {name: tensor.clone() for name, tensor in average.tensors().items()}
    memory = {name: weight.data_ptr() for name, weight in parameters.items()}
    try:
        with average.applied():
            assert all(torch.equal(parameters[name], held[name]) for name in SHAPES)
            assert not torch.equal(parameters["matrix"], own["matrix"])
            assert all(weight.requires_grad for weight in parameters.values())
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert all(torch.equal(parameters[name], own[name]) for name in SHAPES)
    assert all(torch.equal(average.tensors()[name], held[name]) for name in SHAPES)
    assert {name: weight.data_ptr() for name, weight in parameters.items()} == memory


def test_nan_weights_come_back_as_they_were() -> None:
    parameters, average = followed(0.9, 2)
    with torch.no_grad():
        parameters["vector"][1] = torch.nan
    with average.applied():
        assert torch.isfinite(parameters["vector"]).all()
    assert torch.isnan(parameters["vector"]).tolist() == [False, True, False]


def test_a_saved_average_goes_on_to_the_bit() -> None:
    parameters, straight = followed(0.99, 4)
    tensors = {name: tensor.clone() for name, tensor in straight.tensors().items()}
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    broken = WeightAverage(parameters, 0.99)
    broken.load(tensors, straight.updates)
    for step in range(4, 8):
        move(parameters, step)
        straight.update()
        broken.update()
    assert broken.updates == straight.updates == 8
    assert all(torch.equal(straight.tensors()[name], broken.tensors()[name]) for name in SHAPES)
    assert all(torch.equal(tensors[name], kept[name]) for name in SHAPES), "what was loaded is not altered"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("matrix"), "matrix is missing"),
        (lambda tensors: tensors.update(other=torch.ones(3)), "other belongs to no parameter"),
        (lambda tensors: tensors.update(vector=torch.ones(4)), r"vector has shape \(4,\)"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_taken(change: object, message: str) -> None:
    _, average = followed(0.9, 3)
    tensors = {name: torch.zeros_like(tensor) for name, tensor in average.tensors().items()}
    change(tensors)  # type: ignore[operator]
    held = {name: tensor.clone() for name, tensor in average.tensors().items()}
    with pytest.raises(CheckpointError, match=f"average of the weights: {message}"):
        average.load(tensors, 7)
    assert all(torch.equal(average.tensors()[name], held[name]) for name in SHAPES)
    assert average.updates == 3


@pytest.mark.parametrize("call", range(1, 2 * len(SHAPES) + 1))
def test_a_signal_at_any_copy_leaves_the_own_values(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler may raise anywhere, also while the values are put back; `settle` finishes it."""
    parameters, average = followed(0.9, 5)
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    real, calls = torch.Tensor.copy_, [0]

    def copy(self: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == call:
            raise KeyboardInterrupt
        return real(self, *values)

    monkeypatch.setattr(torch.Tensor, "copy_", copy)
    with pytest.raises(KeyboardInterrupt), average.applied():
        pass
    average.settle()
    assert all(torch.equal(parameters[name], before[name]) for name in SHAPES)
