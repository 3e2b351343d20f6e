"""The pretraining recipe and its verb: settings completed and refused, the plan, the dry run, what came out."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from data_helpers import three_words

from lmwright.cli import main
from lmwright.config import merge
from lmwright.data import build
from lmwright.errors import ConfigError, DataError
from lmwright.model.checkpoint import load_model
from lmwright.recipes import pretrain_data, pretrain_parts, pretrain_plan
from lmwright.recipes.pretrain import Beginning, plan_run, pretrain
from lmwright.recipes.pretrain_config import resolve
from lmwright.runs import RunDirectory
from lmwright.scaling.flops import count_parameters
from lmwright.train import machine
from lmwright.train.compile import Trial, decide
from lmwright.train.ranks import Ranks


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return three_words(tmp_path_factory.mktemp("pretrain"), 60)


def given(corpus: Path, **more: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "architecture": {"hidden_size": 16, "num_layers": 1, "num_heads": 2},
        "data": {"corpus": str(corpus), "context_length": 16},
        "training": {"steps": 6, "batch_size": 4, "threads": 1, "matmul": "highest", "precision": "fp32"},
    }
    return merge(base, more)


SCALING = {"factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_positions": 8}


def quiet(text: str) -> None:
    """Say nothing."""


def test_what_is_left_out_follows_from_the_rest(corpus: Path) -> None:
    config = resolve(given(corpus), "test")
    model = config.architecture
    assert (model.vocab_size, model.max_positions, model.eos_id) == (268, 16, 0)
    assert (model.family, model.ffn_size, model.tie_embeddings) == ("llama", 64, True)
    gpt2 = resolve(given(corpus, architecture={"family": "gpt2"}), "test").architecture
    assert (gpt2.position, gpt2.norm, gpt2.ffn_size, gpt2.attention_bias) == ("learned", "layernorm", 64, True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"context_length": 32}, "architecture": {"max_positions": 16}}, "= 32: is longer than .* = 16"),
        ({"architecture": {"vocab_size": 100}}, "vocab_size = 100: is smaller than the 268 entries"),
        ({"architecture": {"hiden_size": 3}}, "did you mean hidden_size"),
        ({"architecture": {"hidden_size": 17}}, "architecture.hidden_size: 17 is not a multiple"),
        (
            {"architecture": {"rope_scaling": SCALING | {"factor": 0.5}}},
            r"architecture\.rope_scaling\.factor: 0.5",
        ),
        ({"architecture": {"family": "gpt2", "head_dim": 4}}, "run.toml: architecture.head_dim: 4; family gpt2"),
        ({"architecture": {"family": "lama"}}, "did you mean llama"),
        ({"task": {"objective": "casual"}}, "did you mean causal"),
        ({"data": {"packing": "loose"}}, "packing = 'loose'"),
        ({"data": {"context_length": 1}}, "context_length = 1"),
        ({"training": {"schedule": {"warmup_steps": 6}}}, "less than the run's 6 steps"),
        ({"training": {"micro_batch_size": 5}}, "must be at most batch_size = 4"),
        ({"trainin": {"steps": 5}}, "did you mean training"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(corpus: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        resolve(given(corpus, **change), "run.toml")
    assert "model." not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_run_without_a_corpus_is_refused(tmp_path: Path) -> None:
    for nothing in ({}, {"data": {"corpus": ""}}):
        with pytest.raises(ConfigError, match=r"data\.corpus is missing"):
            resolve(nothing, "test")
    with pytest.raises(DataError, match="not a built corpus"):
        resolve({"data": {"corpus": str(tmp_path)}}, "test")


def test_a_corpus_smaller_than_a_batch_is_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"too small: .* a batch takes 5000"):
        pretrain(given(corpus, training={"batch_size": 5000}), tmp_path / "run", where="test", say=quiet)
    assert not (tmp_path / "run").exists()


def test_the_plan_is_exact_where_it_can_be(corpus: Path) -> None:
    planned = plan_run(given(corpus), "test")
    figures, config = planned.figures, planned.config
    assert figures["tokens"] == 6 * 4 * 16
    assert figures["parameters"]["total"] == count_parameters(config.architecture).total
    # One layer, D 16, F 64, V 268: 2 FLOPs a weight, attention 4 T D a token, times three for the backward pass.
    matrices = 4 * 16 * 16 + 3 * 16 * 64 + 16 * 268
    assert figures["flops"]["per_token"] == 3 * (2 * matrices + 4 * 16 * 16)
    assert figures["flops"]["total"] == figures["flops"]["per_token"] * figures["tokens"]
    assert figures["flops"]["six_nd_all_parameters"] == 6 * figures["parameters"]["total"] * figures["tokens"]
    parts = [size for name, size in figures["memory_bytes"].items() if name != "total"]
    assert sum(parts) == figures["memory_bytes"]["total"]
    assert figures["seconds"] == 6 * figures["step_seconds"]
    assert "the least measured seconds" in figures["seconds_basis"]
    assert "auto" not in (config.training.precision, config.training.threads, config.training.matmul)


def test_a_model_too_large_for_memory_is_planned_from_the_peak(corpus: Path) -> None:
    sizes = {"hidden_size": 16384, "num_layers": 126, "num_heads": 128, "ffn_size": 53248}
    with pytest.raises(ConfigError, match="memory: a step needs about"):
        plan_run(given(corpus, architecture=sizes), "test")
    planned = plan_run(given(corpus, architecture=sizes), "test", must_fit=False)
    figures = planned.figures
    assert "memory: a step needs about" in planned.notes[-1]
    assert figures["step_seconds"] is None
    assert figures["seconds"] == figures["flops"]["total"] / (0.4 * figures["peak_flops"])
    assert "0.4 of the measured peak" in figures["seconds_basis"]


def test_a_run_writes_plan_metrics_and_a_model_that_opens(corpus: Path, tmp_path: Path) -> None:
    said: list[str] = []
    run = tmp_path / "run"
    final = pretrain(given(corpus, training={"eval_every": 3}), run, where="test", say=said.append)
    assert final.step == 6
    records = RunDirectory.open(run).metrics()
    kinds = [record["kind"] for record in records]
    assert kinds[0] == "start"
    assert kinds[-1] == "end"
    assert kinds.count("step") == 6
    evaluations = [record for record in records if record["kind"] == "evaluation"]
    assert [record["step"] for record in evaluations] == [3, 6]
    assert evaluations[1]["loss"] < evaluations[0]["loss"]
    plan = json.loads((run / "plan.json").read_text())
    assert records[-1]["tokens"] == plan["tokens"]
    assert records[-1]["peak_memory_bytes"] > 2**24
    assert any("planned" in line for line in said)
    model = load_model(run / "checkpoints" / (run / "latest").read_text().strip())
    assert model.num_parameters() == plan["parameters"]["total"]
    resolved = json.loads((run / "config.json").read_text())
    assert resolved["training"]["optimizer"]["betas"] == [0.9, 0.95]
    assert resolved["training"]["threads"] == 1


def test_nothing_is_overwritten_unless_forced(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(given(corpus), run, where="test", say=quiet)
    before = (run / "metrics.jsonl").read_text()
    with pytest.raises(ConfigError, match="--force"):
        pretrain(given(corpus), run, where="test", say=quiet)
    assert (run / "metrics.jsonl").read_text() == before
    pretrain(given(corpus, training={"seed": 1}), run, where="test", force=True, say=quiet)
    assert (run / "metrics.jsonl").read_text() != before


def test_the_same_seed_twice_gives_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        pretrain(given(corpus), tmp_path / name, where="test", say=quiet)
    one, two = (tmp_path / name / "checkpoints/step-000006/model.safetensors" for name in ("a", "b"))
    assert one.read_bytes() == two.read_bytes()


def test_measuring_does_not_touch_the_process_rngs(corpus: Path) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    plan_run(given(corpus), "test")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_verb_lays_file_overrides_and_flags_over_each_other(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        "[architecture]\nhidden_size = 16\nnum_layers = 1\n[training]\nsteps = 5\nbatch_size = 2\nthreads = 1\n"
    )
    words = [str(file), "training.steps=7", "training.schedule.name=wsd", "--corpus", str(corpus), "--dry-run"]
    assert main.run(["pretrain", *words, "--batch-size", "3", "--lr", "0.01", "--context", "16"]) == 0
    shown = capsys.readouterr().out
    config = json.loads(shown[: shown.index("\n}") + 2])
    training = config["training"]
    assert (training["steps"], training["batch_size"], training["optimizer"]["lr"]) == (7, 3, 0.01)
    assert training["schedule"]["name"] == "wsd"
    assert config["data"]["context_length"] == 16
    for label in ("threads", "precision", "parameters", "tokens", "FLOPs", "memory", "time"):
        assert f"\n{label} " in shown
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.toml"]


def as_process(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the environment to that of a process which torchrun has started."""
    numbers = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 2}
    for name, value in {**numbers, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))


def test_of_several_processes_one_prints_the_dry_run(
    corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["pretrain", "--dry-run", "--corpus", str(corpus), "--context", "16", "architecture.hidden_size=16"]
    words += ["architecture.num_layers=1", "--threads", "1", "--steps", "2", "--batch-size", "4"]
    shown = []
    for rank in (0, 1):
        as_process(rank, monkeypatch)
        assert main.run(words) == 0
        shown.append(capsys.readouterr().out)
    assert "\nprocesses     2 (ddp)\n" in shown[0]
    assert shown[1] == ""


def test_a_quickstart_of_several_processes_is_refused_by_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    for rank in (0, 1):
        as_process(rank, monkeypatch)
        assert main.run(["quickstart", "--out", str(tmp_path / "run")]) == 1
        said.append(capsys.readouterr().err)
    assert "quickstart: runs in one process, and 2 were started" in said[0]
    assert (said[0].count("\n"), said[1]) == (1, "")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "--out is missing"),
        (["--out", "x", "--resume", "--steps", "5"], 2, "so steps cannot be changed"),
        (["--out", "x", "--resume", "training.seed=1"], 2, "so training.seed=1 cannot be changed"),
        (["a.toml", "b.toml", "--out", "x"], 2, "one run file at most"),
        (["--out", "x", "--resume"], 1, "is not a run directory"),
        (["--out", "x", "--corpus", "nowhere"], 1, "is not a built corpus"),
        (["--out", "x", "--corpus", "nowhere", "--threads", "many"], 1, "is not a built corpus"),
        (["--out", "x", "--resume", "--corpus", "c", "--seed", "5"], 2, "so seed cannot be changed"),
        (["missing.toml", "--out", "x"], 2, "missing.toml: cannot be read"),
    ],
)
def test_what_the_verb_refuses(
    words: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.run(["pretrain", *words]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_bad_setting_is_told_before_torch_is_imported(corpus: Path) -> None:
    program = (
        "import sys\n"
        "from lmwright.cli import main\n"
        "assert main.run(['pretrain', 'training.stepps=3', '--out', 'x', '--corpus', sys.argv[1]]) == 2\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(corpus)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "did you mean steps" in done.stderr


def test_a_plan_is_taken_over_for_another_number_of_steps(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = given(corpus, training={"threads": "auto", "precision": "auto"})
    planned = plan_run(chosen, "test")
    monkeypatch.setattr(pretrain_plan, "measure", lambda *_, **__: pytest.fail("must not measure again"))
    longer = merge(chosen, {"training": {"steps": 9, "eval_every": 3}})
    pretrain(longer, tmp_path / "run", where="test", measured=planned.measured, say=quiet)
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert (plan["steps"], plan["tokens"]) == (9, 9 * 4 * 16)
    assert plan["seconds"] == 9 * planned.figures["step_seconds"]
    training = json.loads((tmp_path / "run" / "config.json").read_text())["training"]
    assert (training["eval_every"], training["schedule"]["warmup_steps"]) == (3, 0)
    settled = planned.config.training
    for name in ("threads", "precision", "matmul", "device"):
        assert training[name] == getattr(settled, name) != "auto"
    with pytest.raises(AssertionError):
        plan_run(merge(chosen, {"training": {"batch_size": 5}}), "test", measured=planned.measured)


def trial(**seconds: float) -> Trial:
    return Trial(compile=False, reason="as it was", **seconds)


@pytest.mark.parametrize(
    ("tried", "steps", "again", "reason"),
    [
        (trial(), 10**9, False, "as it was"),  # no compiler: no length changes that
        (trial(eager_seconds=0.1), 124, False, "more than 7.4 s"),  # two micro-batches a step, 30% of them
        (trial(eager_seconds=0.1), 126, True, ""),
        (decide(1.0, 0.8, 10.0, 1), 37, False, "15 s in the run"),
        (decide(1.0, 0.8, 10.0, 1), 38, True, ""),  # 15.2 s saved, above 1.5 x 10
        (decide(1.0, 0.8, 10.0, 1000), 37, True, ""),
        (decide(1.0, 0.8, 10.0, 1000), 50, False, "20 s in the run"),
    ],
)
def test_the_decision_to_compile_is_taken_over_only_where_it_would_be_the_same(
    corpus: Path, tried: Trial, steps: int, again: bool, reason: str
) -> None:
    chosen = given(corpus, training={"micro_batch_size": 3, "compile": tried.compile})
    measured = pretrain_plan.Measured(
        config=resolve(chosen, "test"),
        step_seconds=1.0,
        peak_flops=1.0,
        threads={},
        matmul_errors={},
        free_memory=2.0**33,
        compile=tried,
    )
    # A plan of other steps has another decay, which takes no time either.
    other = {"steps": steps, "optimizer": {"lr": 1e-4, "weight_decay": 0.07}}
    longer = resolve(merge(chosen, {"training": other}), "test")
    adopted = pretrain_plan.adopt(longer, measured)
    assert (adopted is None) is again
    if adopted is not None:
        assert adopted.compile is not None
        assert adopted.compile.compile is adopted.config.training.compile is tried.compile
        assert reason in adopted.compile.reason


def test_what_does_not_hold_for_the_steps_is_measured_again(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan_run(given(corpus), "test")
    monkeypatch.setattr(pretrain_plan, "adopt", lambda *_: None)
    again = plan_run(given(corpus), "test", measured=planned.measured)
    assert again.measured is not planned.measured


def test_compiling_is_tried_for_a_run_of_the_seconds_that_were_asked_for(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []

    def try_out(model: object, micro_batch: object, count: int) -> Trial:
        counts.append(count)
        return trial()

    monkeypatch.setattr(pretrain_plan, "try_out", try_out)
    monkeypatch.setattr(machine, "least_seconds", lambda *_, **__: 0.5)
    chosen = given(corpus, training={"micro_batch_size": 3})
    plan_run(chosen, "test")
    plan_run(chosen, "test", seconds=120.0)
    assert counts == [6 * 2, 240]


def test_the_corpus_is_opened_and_verified_once(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Manifest, checksums of each split's shard and counts of its tokens: each once in a run from its start."""
    calls: list[str] = []

    def spy(owner: Any, name: str, label: Callable[..., str]) -> None:
        real = getattr(owner, name)

        def spied(*args: Any, **more: Any) -> Any:
            calls.append(label(*args, **more))
            return real(*args, **more)

        monkeypatch.setattr(owner, name, spied)

    spy(build, "_verify", lambda directory: "manifest")
    spy(build.Shard, "open", lambda path, *, verify, **_: f"{path.name} {verify}")
    spy(pretrain_data, "token_counts", lambda split: f"counts {split.name.split()[-1]}")
    pretrain(given(corpus, training={"eval_every": 3}), tmp_path / "run", where="test", say=quiet)
    assert sorted(calls) == [
        "counts train",
        "manifest",
        "train-00000.lmw True",
        "validation-00000.lmw True",
    ]


@pytest.mark.parametrize(("local_rank", "verifies"), [(0, True), (1, False)])
def test_the_first_process_of_each_other_machine_verifies_the_corpus(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local_rank: int, verifies: bool
) -> None:
    class Opened(Exception):
        """What was to be seen has been."""

    def open_data(config: object, place: Path, *, verify: bool) -> None:
        assert (place, verify) == (corpus, verifies)
        raise Opened

    monkeypatch.setattr(pretrain_parts, "open_data", open_data)
    monkeypatch.setattr(Ranks, "together", lambda ranks: contextlib.nullcontext())
    ranks = Ranks(2 + local_rank, 4, local_rank, 2)
    beginning = Beginning(config=resolve(given(corpus), "test"), figures={}, data=None, start=None)
    with pytest.raises(Opened):
        pretrain_parts.build(RunDirectory(tmp_path), beginning, "", ranks)


def test_a_damaged_corpus_is_refused_before_anything_is_measured(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(corpus, tmp_path / "corpus")
    raw = bytearray((copy / "train-00000.lmw").read_bytes())
    raw[-40] ^= 1
    (copy / "train-00000.lmw").write_bytes(raw)
    monkeypatch.setattr(pretrain_plan, "measure", lambda *_, **__: pytest.fail("must not measure"))
    with pytest.raises(DataError, match=r"train-00000\.lmw: its content differs from the manifest"):
        pretrain(given(copy), tmp_path / "run", where="test", say=quiet)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("threads", ["abc", "99999", "0", "-1", "²", "9" * 5000])
def test_a_number_of_threads_that_cannot_be_is_refused(
    threads: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--corpus", str(corpus), "--out", str(tmp_path / "x"), "--threads", threads]
    assert main.run(["pretrain", *words]) == 2
    error = capsys.readouterr().err
    assert "must be a whole number from 1 to 1024, or auto" in error
    assert error.count("\n") == 1


def test_a_corpus_at_the_top_level_is_told_before_one_that_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"^run\.toml: unknown setting corpus \(did you mean data\.corpus\?\)"):
        resolve({"corpus": "shards"}, "run.toml")
    with pytest.raises(ConfigError, match=r"^run\.toml: setting data\.corpus is missing"):
        resolve({"training": {"steps": 3}}, "run.toml")
