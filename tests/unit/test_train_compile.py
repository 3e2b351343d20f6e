"""Compiled norms and activations: right in formula, only where a model trains, and only where they pay."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from lmwright.errors import ConfigError, UnsupportedError
from lmwright.model import rope
from lmwright.model.config import ModelConfig
from lmwright.model.context import Context
from lmwright.model.ffn.dense import activate
from lmwright.model.language_model import LanguageModel
from lmwright.model.norm import BLOCK, layer_norm, rms_norm
from lmwright.train import compile as compilation

LLAMA = ModelConfig.llama(vocab_size=19, hidden_size=16, num_layers=2, num_heads=2, ffn_size=24, max_positions=12)
GPT2 = ModelConfig.gpt2(vocab_size=19, hidden_size=16, num_layers=2, num_heads=2, max_positions=12)
EPS = 1e-3


def plain_layer_norm(x, w, b):
    return F.layer_norm(x, w.shape, w, b, EPS)


def plain_rms_norm(x, w, b):
    return w * x / (x.square().mean(-1, keepdim=True) + EPS).sqrt()


def plain_gelu(x, w, b):
    return F.gelu(x, approximate="tanh")


# name: ours, the same without any gradient of its own
PARTS = {
    "layer_norm": (lambda x, w, b: layer_norm(x, w, b, EPS), plain_layer_norm),
    "rms_norm": (lambda x, w, b: rms_norm(x, w, EPS), plain_rms_norm),
    "gelu_tanh": (lambda x, w, b: activate(x, "gelu_tanh"), plain_gelu),
}


@pytest.fixture
def written_out(monkeypatch):
    """Take the formulas that the compiler is given, and run them as they stand."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)


def inputs(rows: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    x = 3.0 * torch.randn(rows, 16, generator=generator) + 0.5
    w, b = torch.randn(2, 16, generator=generator)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return tuple(t.to(kind).requires_grad_() for t, kind in ((x, dtype), (w, wide), (b, wide)))


def gradients(part, given, grad):
    leaves = [t.detach().clone().requires_grad_() for t in given]
    y = part(*leaves)
    y.backward(grad.to(y.dtype))
    return [y.detach(), *(t.grad for t in leaves if t.grad is not None)]


@pytest.mark.parametrize("rows", [3, 2 * BLOCK])
@pytest.mark.parametrize("name", PARTS)
def test_written_out_formulas_and_gradients_are_exact(written_out, name, rows):
    ours, plain = PARTS[name]
    given = inputs(rows, torch.float64)
    grad = torch.randn(rows, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    for got, expected in zip(gradients(ours, given, grad), gradients(plain, given, grad), strict=True):
        assert torch.allclose(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PARTS)
def test_in_bf16_nothing_is_further_from_float64_than_torchs_own(monkeypatch, name):
    ours, plain = PARTS[name]
    given = inputs(2 * BLOCK, torch.bfloat16)
    grad = torch.randn(2 * BLOCK, 16, generator=torch.Generator().manual_seed(4)).bfloat16()

    def widened(x, w, b):  # what there was before: fp32 copies, torch's kernels, rounded once
        return plain(x.float(), w, b).to(x.dtype) if name != "gelu_tanh" else plain(x, w, b)

    exact = gradients(plain, [t.double() for t in given], grad.double())
    torchs = gradients(widened, given, grad)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for got, theirs, true in zip(gradients(ours, given, grad), torchs, exact, strict=True):
        assert got.dtype == theirs.dtype
        rounding = 1e-6 * true.norm()  # fp32 sums in another order
        assert (got.double() - true).norm() <= (theirs.double() - true).norm() + rounding


def test_a_rotation_written_out_is_the_same_and_its_gradient_turns_back(monkeypatch):
    cos, sin = rope.tables(LLAMA, torch.arange(12)[None])
    x, grad = torch.randn(2, 3, 12, 2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    ways = []
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiling=compiling: compiling)
        turn = partial(rope.rotate, cos=cos.double(), sin=sin.double())
        ways.append(gradients(turn, [x], grad))
    left, right = x.chunk(2, -1)
    turned = torch.complex(left, right) * torch.complex(cos.double(), sin.double())
    ways.append([torch.cat((turned.real, turned.imag), -1)])
    for other in ways[1:]:
        for got, expected in zip(other, ways[0], strict=False):
            assert torch.allclose(got, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler, of itself
@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
@pytest.mark.parametrize(
    ("dtype", "allowed"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=["fp32", "bf16"]
)
def test_a_whole_model_may_be_compiled_by_its_user(config, dtype, allowed):
    model = LanguageModel(config)
    model.init_weights(torch.Generator().manual_seed(0))
    ids, labels = torch.randint(0, 19, (2, 3, 12), generator=torch.Generator().manual_seed(1))

    def learnt(call) -> tuple[float, torch.Tensor]:
        model.zero_grad()
        logits = model.logits(call(ids, Context.dense(ids, dtype=dtype)))
        loss = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten())
        loss.backward()
        return loss.item(), torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    loss, grad = learnt(model)
    compiled_loss, compiled_grad = learnt(torch.compile(model))
    assert compiled_loss == pytest.approx(loss, rel=allowed)
    assert (compiled_grad - grad).norm() < allowed * grad.norm()


def test_gelu_is_finite_and_monotone_at_the_far_ends(written_out):
    x = torch.tensor([-1e4, -60.0, -9.0, 0.0, 9.0, 1e4], requires_grad=True)
    y = activate(x, "gelu_tanh")
    y.sum().backward()
    assert y.tolist() == pytest.approx([0.0, 0.0, 0.0, 0.0, 9.0, 1e4], abs=1e-12)
    assert x.grad.tolist() == pytest.approx([0.0, 0.0, 0.0, 0.5, 1.0, 1.0], abs=1e-12)


@pytest.fixture
def calls(monkeypatch):
    """What would be compiled is counted and run as it is."""
    seen: list[str] = []

    def fake(function, *, dynamic, fullgraph):
        assert (dynamic, fullgraph) == (False, True)

        def counted(*args):
            seen.append(f"{type(function.__self__).__name__}.{function.__name__}")
            return function(*args)

        return counted

    monkeypatch.setattr(torch, "compile", fake)
    return seen


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LLAMA, ["RMSNorm.forward", "RMSNorm.of_sum", "Activation.forward"] * 2 + ["RMSNorm.forward"]),
        (GPT2, ["LayerNorm.forward", "LayerNorm.of_sum", "Activation.forward"] * 2 + ["LayerNorm.forward"]),
    ],
)
def test_norms_and_activations_are_compiled_where_a_model_trains_alone(calls, config, expected):
    model = LanguageModel(config)
    model.init_weights(torch.Generator().manual_seed(0))
    ids = torch.randint(0, 19, (2, 8), generator=torch.Generator().manual_seed(1))
    names = list(model.state_dict())
    before = model(ids, Context.dense(ids))
    parts = compilation.compile_model(model)
    assert list(model.state_dict()) == names
    with torch.no_grad():
        model(ids, Context.dense(ids))
        model(ids, Context.dense(ids, exact=True))
    assert calls == []
    assert torch.equal(model(ids, Context.dense(ids)), before)
    assert calls == expected
    parts.active = False
    model(ids, Context.dense(ids))
    assert len(calls) == len(expected)


def test_a_process_may_train_models_of_many_shapes(calls):
    from torch._dynamo import config

    with config.patch(recompile_limit=8):
        compilation.compile_model(LanguageModel(GPT2))
        assert config.recompile_limit == compilation.MOST_SHAPES


def test_recomputed_blocks_are_compiled_in_both_passes(calls):
    model = LanguageModel(LLAMA)
    model.init_weights(torch.Generator().manual_seed(0))
    compilation.compile_model(model)
    ids = torch.zeros(1, 4, dtype=torch.int64)
    model(ids, Context.dense(ids, recompute=True)).sum().backward()
    assert len(calls) == 7 + 6


@pytest.mark.parametrize(
    ("eager", "compiled", "cost", "count", "worth"),
    [
        (1.0, 0.8, 10.0, 76, True),  # 15.2 s saved, above 1.5 x 10
        (1.0, 0.8, 10.0, 74, False),  # 14.8 s
        (1.0, 0.94, 0.0, 1, True),
        (1.0, 0.96, 0.0, 10**6, False),  # 4%: within what a machine varies by
        (1.0, 1.2, 0.0, 100, False),
    ],
)
def test_compilation_is_taken_where_it_saves_more_than_it_costs(eager, compiled, cost, count, worth):
    found = compilation.decide(eager, compiled, cost, count)
    assert found.compile is worth
    assert (found.eager_seconds, found.compiled_seconds, found.compile_seconds) == (eager, compiled, cost)
    assert f"{eager:.3g} s" in found.reason


def test_a_short_run_compiles_nothing(calls):
    model = LanguageModel(GPT2)
    runs: list[int] = []
    found = compilation.try_out(model, lambda: runs.append(1), micro_batches=3)
    assert not found.compile
    assert "too short" in found.reason
    assert (len(runs), calls) == (1, [])


def test_a_long_run_is_measured_both_ways_by_turns(monkeypatch, calls):
    model = LanguageModel(GPT2)
    model.init_weights(torch.Generator().manual_seed(0))
    ids = torch.zeros(1, 4, dtype=torch.int64)
    clock = [0.0]
    monkeypatch.setattr(compilation.time, "perf_counter", lambda: clock[0])

    def micro_batch() -> None:
        before = len(calls)
        model(ids, Context.dense(ids))
        first = before == 0 and len(calls) > 0
        clock[0] += 20.0 if first else 0.7 if len(calls) > before else 1.0

    found = compilation.try_out(model, micro_batch, micro_batches=1000)
    assert found.compile
    assert found.eager_seconds == pytest.approx(1.0)
    assert found.compiled_seconds == pytest.approx(0.7)
    assert found.compile_seconds == pytest.approx(19.3)


# torch's own, while it loads its compiler.
@pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")
def test_a_machine_that_cannot_compile_resolves_to_false_or_says_so(monkeypatch):
    from torch._inductor import config

    function = torch.compile(lambda x: torch.sin(x) * 2.0, dynamic=False)
    runs: list[int] = []

    def micro_batch() -> None:  # the first is eager
        runs.append(1)
        if len(runs) > 1:
            function(torch.ones(77))

    monkeypatch.setattr(compilation, "MOST_GAIN", 1e12)
    with config.patch({"cpp.cxx": (None, "no-such-compiler")}):
        found = compilation.try_out(LanguageModel(GPT2), micro_batch, micro_batches=1000)
        assert not found.compile
        assert found.compile_seconds is None
        assert "does not work here" in found.reason
        with pytest.raises(ConfigError, match=r"training.compile = true: .*no-such-compiler.*false"):
            compilation.checked(micro_batch)


def test_a_model_that_could_not_be_compiled_goes_on_without(monkeypatch):
    from torch._inductor import config

    model = LanguageModel(replace(GPT2, hidden_size=24))
    model.init_weights(torch.Generator().manual_seed(0))
    ids = torch.ones(1, 5, dtype=torch.int64)

    def micro_batch() -> None:
        model.logits(model(ids, Context.dense(ids))).sum().backward()

    monkeypatch.setattr(compilation, "MOST_GAIN", 1e12)
    with config.patch({"cpp.cxx": (None, "no-such-compiler")}):
        assert not compilation.try_out(model, micro_batch, micro_batches=1000).compile
        micro_batch()


def test_a_model_without_norms_and_activations_is_not_compiled():
    model = LanguageModel(
        ModelConfig.of_family("lstm", vocab_size=9, hidden_size=8, num_layers=1, max_positions=4)
    )
    found = compilation.try_out(model, lambda: pytest.fail("nothing is there to be measured"), 10**9)
    assert (found.compile, found.eager_seconds) == (False, None)
    assert "neither norms nor activations" in found.reason
    with pytest.raises(ConfigError, match="compile = true: this model has neither norms nor activations"):
        compilation.compile_model(model)


def test_the_models_own_errors_are_not_the_compilers():
    def fail() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        compilation.checked(fail)


def test_sharded_parameters_are_refused():
    compilation.refuse_sharded("ddp", 2)
    compilation.refuse_sharded("fsdp", 1)
    with pytest.raises(UnsupportedError, match="fsdp"):
        compilation.refuse_sharded("fsdp", 2)


PROGRAM = """
import hashlib, json, sys, torch
from pathlib import Path
from safetensors.torch import load_file, save_file
from lmwright.data.batch import Batch
from lmwright.model.config import ModelConfig
from lmwright.model.language_model import LanguageModel
from lmwright.objectives import causal
from lmwright.train import compile, gradient
from lmwright.train.optimizers import adamw

kind, first, last, place = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
torch.set_num_threads(1)
build = ModelConfig.llama if kind == "llama" else ModelConfig.gpt2
sizes = {"vocab_size": 31, "hidden_size": 64, "num_layers": 2, "num_heads": 2, "ffn_size": 256}
model = LanguageModel(build(max_positions=32, **sizes))
model.init_weights(torch.Generator().manual_seed(0))
optimizer = adamw.build(dict(model.named_parameters()), adamw.Settings(lr=1e-2))
if first:
    kept = load_file(place / f"{first}.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(kept.pop("model." + name))
    optimizer.load({name.removeprefix("optimizer."): tensor for name, tensor in kept.items()})
compile.compile_model(model)
for step in range(first, last):
    draw = torch.Generator().manual_seed(step)
    ids, labels = torch.randint(0, 31, (2, 4, 32), generator=draw)
    found = gradient.compute(
        model, causal.loss, Batch(ids_BT=ids, labels_BT=labels), micro_batch_size=2, precision="bf16",
        clip_norm=1.0, dropout=lambda place: None,
    )
    optimizer.step(1.0)
tensors = {"model." + name: parameter.detach() for name, parameter in model.named_parameters()}
tensors |= {"optimizer." + name: tensor for name, tensor in optimizer.tensors().items()}
save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, place / f"{last}.safetensors")
from torch._dynamo.utils import counters
print(json.dumps({"loss": found.loss_sum, "graphs": counters["stats"]["unique_graphs"],
                  "weights": hashlib.sha256((place / f"{last}.safetensors").read_bytes()).hexdigest()}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_compiled_run_resumes_bitwise_in_fresh_processes_that_compile_anew(tmp_path, monkeypatch, kind):
    import json

    def run(first: int, last: int, name: str) -> dict:
        place = tmp_path / name
        place.mkdir(exist_ok=True)
        # An empty cache each: nothing of the first process's kernels is found by the second.
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / f"kernels-{name}-{first}"))
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, kind, str(first), str(last), str(place)],
            check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        return json.loads(done.stdout.splitlines()[-1])

    straight = run(0, 4, "straight")
    run(0, 2, "resumed")
    assert run(2, 4, "resumed") == straight
    assert straight["graphs"] == 3  # of all layers' norms, norms of sums, and activations
