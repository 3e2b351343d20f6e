"""What holds for every file in train/optimizers, present and future."""

from __future__ import annotations

from itertools import accumulate
from types import ModuleType

import pytest
import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch.profiler import ProfilerActivity, profile

from lmwright import seams
from lmwright.errors import CheckpointError, ConfigError
from lmwright.model.config import ModelConfig
from lmwright.model.language_model import LanguageModel
from lmwright.scaling.memory import OptimizerBytes
from lmwright.scaling.shapes import parameter_shapes
from lmwright.train.groups import GroupConfig

PACKAGE = "lmwright.train.optimizers"
NAMES = seams.names(PACKAGE)
SHAPES = {
    "layer.weight": (5, 7),
    "twin.weight": (5, 7),
    "layer.bias": (5,),
    "embedding.weight": (11, 3),
    "gain": (),
}


def module(name: str) -> ModuleType:
    return seams.load(PACKAGE, name)


def parameters(seed: int = 1) -> dict[str, torch.nn.Parameter]:
    random = torch.Generator().manual_seed(seed)
    return {name: torch.nn.Parameter(torch.randn(shape, generator=random)) for name, shape in SHAPES.items()}


def give_gradients(made: dict[str, torch.nn.Parameter], step: int) -> None:
    random = torch.Generator().manual_seed(100 + step)
    for parameter in made.values():
        parameter.grad = torch.randn(parameter.shape, generator=random)


def updated(name: str, steps: int = 3) -> tuple[dict[str, torch.nn.Parameter], object]:
    made = parameters()
    optimizer = module(name).build(made, module(name).Settings(lr=1e-2))
    for step in range(steps):
        give_gradients(made, step)
        optimizer.step(1.0)
    return made, optimizer


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("broken_at", [0, 1, 3])
def test_a_state_that_was_saved_and_loaded_goes_on_to_the_bit(name: str, broken_at: int) -> None:
    straight, one = updated(name, broken_at)
    saved = write_tensors({key: tensor.contiguous() for key, tensor in one.tensors().items()})
    broken = {key: torch.nn.Parameter(parameter.detach().clone()) for key, parameter in straight.items()}
    two = module(name).build(broken, module(name).Settings(lr=1e-2))
    two.load(read_tensors(saved))
    for step in range(broken_at, broken_at + 3):
        for made, optimizer in ((straight, one), (broken, two)):
            give_gradients(made, step)
            optimizer.step(3 / (step + 1))
        assert all(torch.equal(straight[key], broken[key]) for key in SHAPES)
    assert {key: tensor.dtype for key, tensor in two.tensors().items()} == {
        key: tensor.dtype for key, tensor in one.tensors().items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_what_was_loaded_is_not_altered_by_the_next_step(name: str) -> None:
    made, optimizer = updated(name)
    given = {key: tensor.clone() for key, tensor in optimizer.tensors().items()}
    kept = {key: tensor.clone() for key, tensor in given.items()}
    fresh = module(name).build(made, module(name).Settings(lr=1e-2))
    fresh.load(given)
    give_gradients(made, 9)
    fresh.step(1.0)
    assert all(torch.equal(given[key], kept[key]) for key in kept)


@pytest.mark.parametrize("name", NAMES)
def test_steps_lower_a_convex_loss_each_one_at_first(name: str) -> None:
    made, target = parameters(), parameters(seed=2)
    optimizer = module(name).build(made, module(name).Settings(lr=1e-2))
    losses = []
    for _ in range(20):
        for parameter in made.values():
            parameter.grad = None
        loss = sum(((parameter - target[key]) ** 2).sum() for key, parameter in made.items())
        loss.backward()
        losses.append(loss.item())
        optimizer.step(1.0)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_without_a_gradient_is_untouched_and_has_no_state(name: str) -> None:
    made = parameters()
    optimizer = module(name).build(made, module(name).Settings(lr=1e-2))
    before = {key: parameter.detach().clone() for key, parameter in made.items()}
    give_gradients(made, 0)
    made["layer.weight"].grad = made["gain"].grad = None
    optimizer.step(1.0)
    assert {key for key in SHAPES if torch.equal(made[key], before[key])} == {"layer.weight", "gain"}
    assert not [key for key in optimizer.tensors() if key.startswith(("layer.weight", "gain"))]


@pytest.mark.parametrize("name", NAMES)
def test_the_rate_is_the_peak_times_the_factor(name: str) -> None:
    one, two = parameters(), parameters()
    slow = module(name).build(one, module(name).Settings(lr=2e-2))
    fast = module(name).build(two, module(name).Settings(lr=1e-2))
    for made, optimizer, factor in ((one, slow, 0.5), (two, fast, 1.0)):
        give_gradients(made, 0)
        optimizer.step(factor)
    assert all(torch.equal(one[key], two[key]) for key in SHAPES)
    still = {key: parameter.detach().clone() for key, parameter in one.items()}
    slow.step(0.0)
    assert all(torch.equal(one[key], still[key]) for key in SHAPES), "at rate 0 nothing moves"


@pytest.mark.parametrize("name", NAMES)
def test_a_group_has_its_own_rate_and_decay(name: str) -> None:
    settings = module(name).Settings(lr=1e-2)
    groups = [GroupConfig(match="^layer", lr=0.0), GroupConfig(match="embedding", lr=2.0, weight_decay=0.0)]
    grouped, plain, twice = parameters(), parameters(), parameters()
    for made, optimizer, factor in (
        (grouped, module(name).build(grouped, settings, groups), 1.0),
        (plain, module(name).build(plain, settings), 1.0),
        (twice, module(name).build(twice, settings, [GroupConfig(match="", weight_decay=0.0)]), 2.0),
    ):
        give_gradients(made, 0)
        optimizer.step(factor)
    start = parameters()
    assert torch.equal(grouped["layer.weight"], start["layer.weight"])
    assert torch.equal(grouped["layer.bias"], start["layer.bias"])
    assert torch.equal(grouped["gain"], plain["gain"])
    torch.testing.assert_close(grouped["embedding.weight"], twice["embedding.weight"], rtol=0, atol=0)
    assert not torch.equal(grouped["embedding.weight"], plain["embedding.weight"])


@pytest.mark.parametrize("name", NAMES)
def test_a_group_without_a_parameter_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="finds no parameter"):
        module(name).build(parameters(), module(name).Settings(), [GroupConfig(match="nobody")])


@pytest.mark.parametrize(
    "groups", [[], [GroupConfig(match="q_proj|norm|weight_hh", lr=0.0), GroupConfig(match="0", lr=2.0)]]
)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", seams.names("lmwright.model.families"))
@pytest.mark.parametrize("name", NAMES)
def test_the_declared_state_has_the_bytes_of_the_tensors(
    name: str, family: str, tied: bool, groups: list[GroupConfig]
) -> None:
    sizes = {"vocab_size": 16, "hidden_size": 8, "num_layers": 2, "num_heads": 2, "max_positions": 8}
    fixed = seams.load("lmwright.model.families", family).defaults()
    sizes = {name: fixed.get(name, size) for name, size in sizes.items()}
    config = ModelConfig.of_family(family, **sizes, tie_embeddings=tied)
    made = dict(LanguageModel(config).named_parameters())
    settings = module(name).Settings(lr=1e-2)
    optimizer = module(name).build(made, settings, groups)
    give_gradients(made, 0)
    optimizer.step(1.0)
    held = sum(tensor.nbytes for tensor in optimizer.tensors().values())
    assert module(name).memory(parameter_shapes(config), settings).state == held


@pytest.mark.parametrize("name", NAMES)
def test_a_step_takes_no_more_than_the_declared_workspace(name: str) -> None:
    """By torch's own account of tensors, on matrices that are large beside its scalars."""
    shapes = {f"{part}.weight": (64, 96) for part in ("a", "b", "c", "embed")} | {"a.bias": (96,)}
    made = {key: torch.nn.Parameter(torch.ones(shape)) for key, shape in shapes.items()}
    settings = module(name).Settings()
    optimizer = module(name).build(made, settings)
    give_gradients(made, 0)
    optimizer.step(1.0)  # which makes the state
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        optimizer.step(1.0)
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    assert max(accumulate(sizes), default=0) <= module(name).memory(shapes, settings).workspace + 64 * len(shapes)


@pytest.mark.parametrize("name", NAMES)
def test_the_declared_workspace_is_bytes_of_the_shapes_alone(name: str) -> None:
    settings = module(name).Settings()
    declared = module(name).memory(
        {f"{number}.{key}": SHAPES[key] for number in range(3) for key in SHAPES}, settings
    )
    assert type(declared.workspace) is int
    assert declared.workspace >= module(name).memory(SHAPES, settings).workspace >= 0
    assert module(name).memory({}, settings) == OptimizerBytes(state=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_that_does_not_fit_is_refused_tensor_by_tensor(name: str) -> None:
    _, optimizer = updated(name)
    sound = dict(optimizer.tensors())
    first = next(iter(sound))
    wrong = {"foreign": {**sound, f"nobody.{first}": sound[first]}}
    for key, tensor in sound.items():
        wrong[f"{key} missing"] = {other: kept for other, kept in sound.items() if other != key}
        wrong[f"{key} too large"] = {**sound, key: torch.zeros(*tensor.shape, 2)}
    for what, tensors in wrong.items():
        fresh, refused = module(name).build(parameters(), module(name).Settings(lr=1e-2)), False
        try:
            fresh.load(tensors)
        except CheckpointError as error:
            refused = "optimiser state" in str(error)
        assert refused, what
