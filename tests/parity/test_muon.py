"""Muon against its equations in float64 (singular values by SVD), and against torch.optim.Muon."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from lmwright.errors import CheckpointError, ConfigError
from lmwright.model.config import ModelConfig
from lmwright.model.language_model import LanguageModel
from lmwright.train import parts, precision
from lmwright.train.groups import GroupConfig
from lmwright.train.optimizers import adamw, muon

SHAPES = {"a.weight": (24, 10), "b.weight": (24, 10), "c.weight": (10, 24), "d.weight": (16, 16), "d.bias": (16,)}
RATES = [1e-2, 3e-2, 1e-3, 2e-2]


@pytest.fixture
def fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products as on a machine that does not multiply bf16."""
    monkeypatch.setattr(precision, "native_bf16", lambda device: False)


def make(seed: int = 1) -> dict[str, torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in SHAPES.items()}


def give_gradients(parameters: dict[str, torch.nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(100 + step)
    for parameter in parameters.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def polynomial(values: torch.Tensor, steps: int) -> torch.Tensor:
    for _ in range(steps):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return values


def orthogonalised(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The same by its singular values, in float64."""
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    norm = s.square().sum().sqrt()
    return (u * polynomial(s / norm, steps)) @ vh if norm > 0 else torch.zeros_like(u @ vh)


def with_singular_values(shape: tuple[int, int], values: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    u, _, vh = torch.linalg.svd(torch.randn(shape, generator=generator, dtype=torch.float64), full_matrices=False)
    return (u * values.double()) @ vh


@pytest.mark.parametrize("nesterov", [True, False])
def test_the_update_is_the_published_one(nesterov: bool, fp32: None) -> None:
    settings = muon.Settings(lr=1e-2, momentum=0.9, nesterov=nesterov, weight_decay=0.3)
    parameters = make()
    matrices = {name: parameter for name, parameter in parameters.items() if name != "d.bias"}
    expected = {name: parameter.detach().double() for name, parameter in matrices.items()}
    momenta = {name: torch.zeros_like(value) for name, value in expected.items()}
    optimizer = muon.build(parameters, settings, [GroupConfig(match="^b", lr=0.5, weight_decay=0.1)])
    for step, rate in enumerate(RATES):
        give_gradients(parameters, step)
        optimizer.step(rate / settings.lr)
        for name, value in expected.items():
            gradient = matrices[name].grad.double()
            momenta[name] = 0.9 * momenta[name] + gradient  # Jordan's form: a multiple of ours, which drops out
            update = orthogonalised(gradient + 0.9 * momenta[name] if nesterov else momenta[name])
            lr, decay = (0.5 * rate, 0.1) if name == "b.weight" else (rate, 0.3)
            expected[name] = value - lr * 0.2 * math.sqrt(max(value.shape)) * update - lr * decay * value
    for name, value in expected.items():
        torch.testing.assert_close(matrices[name].detach().double(), value, rtol=1e-5, atol=1e-5)


def test_the_update_is_that_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "native_bf16", lambda device: True)  # torch's is always bf16
    ours, theirs = make(), make()
    settings = muon.Settings(lr=1e-2, weight_decay=0.3)
    optimizer = muon.build(ours, settings)
    them = [parameter for name, parameter in theirs.items() if name != "d.bias"]
    peer = torch.optim.Muon(them, lr=1e-2, weight_decay=0.3, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    start = make()
    for step, rate in enumerate(RATES):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        peer.param_groups[0]["lr"] = rate
        optimizer.step(rate / settings.lr)
        peer.step()
    for name in SHAPES.keys() - {"d.bias"}:
        moved = (theirs[name] - start[name]).norm()
        assert (ours[name] - theirs[name]).norm() < 0.02 * moved, name


@pytest.mark.parametrize("shape", [(64, 64), (96, 32), (32, 96), (8, 200), (1, 7), (7, 1)])
@pytest.mark.parametrize(("dtype", "slack"), [(torch.float32, 1e-4), (torch.bfloat16, 0.02)])
def test_all_singular_values_come_near_one(shape: tuple[int, int], dtype: torch.dtype, slack: float) -> None:
    """0.6818 and 1.1344 are the least and largest values of the five-fold quintic on [0.01, 1], by evaluation."""
    least = 0.02 * min(shape) ** 0.5  # of the Frobenius norm's share; so each is at least 0.01 after division
    values = torch.linspace(1.0, least, min(shape)) if min(shape) > 1 else torch.ones(1)
    assert float((values / values.norm()).min()) > 0.01
    found = muon.orthogonalise(with_singular_values(shape, values).float()[None], 5, dtype)[0]
    assert found.dtype == torch.float32
    singular = torch.linalg.svdvals(found.double())
    assert 0.6818 - slack < float(singular.min()) <= float(singular.max()) < 1.1344 + slack


def test_the_stated_bounds_are_those_of_the_polynomial() -> None:
    for least, low, high in ((0.0015, 0.679, 1.203), (0.01, 0.681, 1.135)):
        values = polynomial(torch.linspace(least, 1, 1_000_001, dtype=torch.float64), 5)
        assert low < float(values.min()) < low + 0.002
        assert high - 0.002 < float(values.max()) < high


@pytest.mark.parametrize("shape", [(40, 20), (20, 40), (30, 30)])
def test_small_singular_values_go_where_the_polynomial_sends_them(shape: tuple[int, int]) -> None:
    values = torch.logspace(0, -6, min(shape))
    matrix = with_singular_values(shape, values)
    found = muon.orthogonalise(matrix.float()[None], 5, torch.float32)[0]
    torch.testing.assert_close(found.double(), orthogonalised(matrix), rtol=0, atol=2e-4)
    singular = torch.linalg.svdvals(found.double())
    assert float(singular.max()) < 1.203
    assert float(singular.min()) < 1e-3


def test_a_matrix_of_low_rank_keeps_its_rank() -> None:
    values = torch.tensor([1.0, 0.5, 0.0, 0.0, 0.0])
    found = muon.orthogonalise(with_singular_values((9, 5), values).float()[None], 5, torch.float32)[0]
    singular = torch.linalg.svdvals(found.double())
    assert float(singular[1]) > 0.68
    assert float(singular[2]) < 1e-4


@pytest.mark.parametrize("shape", [(3, 12, 7), (3, 7, 12)])
def test_a_batch_is_each_matrix_by_itself_whatever_its_scale(shape: tuple[int, ...]) -> None:
    x = (
        torch.randn(shape, generator=torch.Generator().manual_seed(3))
        * torch.tensor([1e-4, 1.0, 1e6])[:, None, None]
    )
    found = muon.orthogonalise(x, 5, torch.float32)
    for number in range(3):
        torch.testing.assert_close(found[number].double(), orthogonalised(x[number]), rtol=0, atol=1e-5)


def test_a_zero_gradient_moves_nothing_and_decay_is_apart_from_the_gradient() -> None:
    parameters, start = make(), make()
    optimizer = muon.build(parameters, muon.Settings(lr=0.1, weight_decay=0.5))
    for step in range(1, 3):
        for parameter in parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step(1.0)
        for name in ("a.weight", "d.weight"):
            torch.testing.assert_close(parameters[name].detach(), start[name] * 0.95**step, rtol=1e-6, atol=0)
    assert torch.equal(parameters["d.bias"], start["d.bias"])


@pytest.mark.parametrize("shape", [(48, 12), (12, 48), (24, 24)])
def test_an_update_has_the_root_mean_square_of_adamw(shape: tuple[int, int]) -> None:
    matrix = torch.nn.Parameter(torch.zeros(shape))
    matrix.grad = with_singular_values(shape, torch.linspace(1, 0.5, min(shape))).float()
    muon.build({"x.weight": matrix}, muon.Settings(lr=1e-2)).step(1.0)
    rms = float(matrix.detach().square().mean().sqrt())
    assert 0.66 * 0.2 * 1e-2 < rms < 1.15 * 0.2 * 1e-2


def test_all_that_is_no_hidden_matrix_is_adamws_with_its_own_settings() -> None:
    shapes = {
        "model.embed_tokens.weight": (9, 4),
        "lm_head.weight": (9, 4),
        "norm.weight": (4,),
        "x.weight": (4, 4),
    }
    generator = torch.Generator().manual_seed(1)
    made = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    ours = {name: torch.nn.Parameter(tensor.clone()) for name, tensor in made.items()}
    rest = {name: torch.nn.Parameter(tensor.clone()) for name, tensor in made.items() if name != "x.weight"}
    others = muon.Others(lr=3e-2, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.7)
    one = muon.build(ours, muon.Settings(lr=1e-2, adamw=others))
    two = adamw.build(rest, adamw.Settings(lr=3e-2, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.7))
    for step in range(3):
        give_gradients({name: ours[name] for name in rest}, step)
        give_gradients(rest, step)
        one.step(0.5)
        two.step(0.5)
    assert all(torch.equal(ours[name], rest[name]) for name in rest)
    assert torch.equal(ours["x.weight"], made["x.weight"]), "it had no gradient"
    assert {name.rpartition(".")[0] for name in one.tensors()} == set(rest)


def test_without_a_rate_of_its_own_adamws_part_has_muons() -> None:
    one, two = make(), make()
    give_gradients(one, 0)
    give_gradients(two, 0)
    muon.build(one, muon.Settings(lr=5e-3)).step(1.0)
    adamw.build(two, adamw.Settings(lr=5e-3)).step(1.0)
    assert torch.equal(one["d.bias"], two["d.bias"])
    assert not torch.equal(one["d.weight"], two["d.weight"])


@pytest.mark.parametrize("tied", [True, False])
def test_the_matrices_of_the_blocks_are_hidden_and_nothing_else_is(tied: bool) -> None:
    shape = {"vocab_size": 16, "hidden_size": 8, "num_layers": 2, "num_heads": 2, "max_positions": 8}
    for config in (
        ModelConfig.llama(**shape, tie_embeddings=tied),
        ModelConfig.gpt2(**shape, tie_embeddings=tied),
    ):
        named = dict(LanguageModel(config).named_parameters())
        found = {name for name, parameter in named.items() if muon.is_hidden(name, parameter.shape)}
        assert found == {name for name, these in named.items() if ".layers." in name and these.dim() == 2}
        assert ("lm_head.weight" in named) == (not tied)
        assert len(found) == 2 * (7 if config.position == "rope" else 6)


def test_names_that_are_no_product_are_not_hidden() -> None:
    for name in ("model.embed_positions.weight", "score.weight", "qa_head.weight", "layers.0.mixer.A_log"):
        assert not muon.is_hidden(name, (4, 4)), name
    assert not muon.is_hidden("layers.0.conv.weight", (4, 1, 3))
    assert muon.is_hidden("layers.0.header.weight", (4, 4))


def test_the_run_file_gives_adamws_settings_in_a_table() -> None:
    table: dict[str, Any] = {"name": "muon", "lr": 2e-3, "adamw": {"lr": 1e-3, "betas": [0.8, 0.9]}}
    settings = parts.settings("optimizers", table)
    assert settings.adamw == muon.Others(lr=1e-3, betas=(0.8, 0.9))
    resolved = parts.resolved("optimizers", table)
    assert parts.settings("optimizers", resolved) == settings
    for wrong in (
        {"adamw": {"beta": 1}},
        {"adamw": {"lr": 0}},
        {"momentum": 1.0},
        {"steps": 0},
        {"nestrov": True},
    ):
        with pytest.raises(ConfigError):
            parts.settings("optimizers", {"name": "muon", **wrong})


def test_a_state_of_another_optimiser_is_refused() -> None:
    parameters = make()
    give_gradients(parameters, 0)
    other = adamw.build(parameters, adamw.Settings())
    other.step(1.0)
    with pytest.raises(CheckpointError, match=r"a\.weight\.exp_avg belongs to no parameter .* as this optimiser"):
        muon.build(make(), muon.Settings()).load(other.tensors())


@pytest.mark.parametrize("shape", [(96, 96), (48, 160), (160, 48)])
@pytest.mark.parametrize(("most", "together"), [(2**28, 5), (2, 2), (1, 1), (0, 1)])
def test_a_step_takes_the_workspace_that_is_declared(
    shape: tuple[int, int], most: int, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By torch's own account of tensors; `most` matrices of a shape are to fit into a batch."""
    monkeypatch.setattr(muon, "BATCH_BYTES", 4 * math.prod(shape) * most)
    shapes = {f"{number}.weight": shape for number in range(5)}
    sizes = []
    monkeypatch.setattr(muon, "orthogonalise", counting(sizes, muon.orthogonalise))
    for native in (False, True):
        monkeypatch.setattr(precision, "native_bf16", lambda device, native=native: native)
        parameters = {name: torch.nn.Parameter(torch.ones(shape)) for name in shapes}
        optimizer = muon.build(parameters, muon.Settings())
        for parameter in parameters.values():
            parameter.grad = torch.ones(shape)
        optimizer.step(1.0)  # which makes the state
        declared = muon.memory(shapes, muon.Settings()).workspace
        found = most_alive(lambda optimizer=optimizer: optimizer.step(1.0))
        assert 0.65 * declared < found < declared if native else found == declared
    assert max(sizes) == together
    assert sum(sizes) == 4 * 5


def counting(sizes: list[int], orthogonalise: Any) -> Any:
    def counted(x_NRC: torch.Tensor, steps: int) -> torch.Tensor:
        sizes.append(len(x_NRC))
        return orthogonalise(x_NRC, steps)

    return counted


def most_alive(work: Callable[[], object]) -> int:
    """Bytes of tensors made by `work` that were alive at once, at most."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        work()
    now = most = 0
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def test_batches_change_no_update_but_its_rounding_and_are_cut_by_shapes_alone(
    monkeypatch: pytest.MonkeyPatch, fp32: None
) -> None:
    """So a resumed run, which meets the same shapes, cuts the same batches, and is equal to the bit."""
    found = {}
    for most in (2**28, 4 * 24 * 10):
        monkeypatch.setattr(muon, "BATCH_BYTES", most)
        parameters = make()
        optimizer = muon.build(parameters, muon.Settings(lr=1e-2))
        for step in range(3):
            give_gradients(parameters, step)
            optimizer.step(1.0)
        found[most] = parameters
    one, two = found.values()
    for name in SHAPES:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=1e-5)
    for shape, together in (((4096, 4096), 4), ((11008, 4096), 1), ((65536, 4096), 1), ((1, 1), 2**26)):
        monkeypatch.setattr(muon, "BATCH_BYTES", 2**28)
        assert muon.at_once(shape) == together
