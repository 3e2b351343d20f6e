"""Runs by several processes that come, go and fail: the same training, the same end for all, and nothing hangs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rank_helpers import program
from tiny_runs import make_corpus, recurrent, settings

from lmwright.config import to_dict
from lmwright.data.build import Corpus
from lmwright.data.loader import Loader, part
from lmwright.data.pack import plan_blocks, plan_documents
from lmwright.model.checkpoint import load_model
from lmwright.recipes.pretrain_config import resolve
from lmwright.runs import RunDirectory
from lmwright.train.ranks import SINGLE, Ranks, of_environment

PROGRAM = Path(__file__).with_name("rank_programs.py")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("ranks"))


def found_by(scenario: str, corpus: Path, work: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(program(PROGRAM, scenario, corpus, work).splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("scenario", "steps"),
    [("few-ddp", 8), pytest.param("worlds-ddp", 12, marks=pytest.mark.slow), ("worlds-fsdp", 12)],
)
def test_one_two_one_and_four_processes_train_as_one_does(
    scenario: str, steps: int, corpus: Path, tmp_path: Path
) -> None:
    found, last = found_by(scenario, corpus, tmp_path), 20 * steps
    *cut, left = found["worlds"]
    assert found["codes"] == [*([-9] * world for world in cut), [0] * left]
    # Every update, by however many processes, took the samples that one process would have taken, in their order.
    config = resolve(settings(corpus), "test")
    plan = plan_documents(Corpus.open(corpus).split("train"), config.data.context_length)
    single = Loader(plan, batch_size=last, seed=config.training.seed).next_batch().sample_ids
    updates: dict[tuple[int, int], dict[int, list[int]]] = {}
    for at, rank, world, samples in found["samples"]:
        if len(samples) * world == 20:  # the trial of the plan takes a micro-batch of its own
            updates.setdefault((at, world), {})[rank] = samples
    for (at, world), parts in updates.items():
        assert sorted(parts) == list(range(world))
        joined = [sample for rank in range(world) for sample in parts[rank]]
        assert joined == list(single[at : at + 20])
    assert {at for at, _ in updates} == set(range(0, last, 20))
    assert {world for _, world in updates} == {*cut, left}
    for ours, straight in [*found["losses"], *found["validation"], *found["averaged"]]:
        assert ours == pytest.approx(straight, rel=1e-6)
    assert found["tokens"][0] == found["tokens"][1]
    assert found["findings"][0] == found["findings"][1]
    named = {step: documents for _, step, documents in found["findings"][0]}
    assert sorted(named) == ([5] if steps < 9 else [5, 9])
    for step, documents in named.items():
        rows = single[20 * (step - 1) : 20 * step]
        assert documents == list(
            dict.fromkeys(plan.split.document_name(number) for row in rows for number in plan.documents(row))
        )
    assert found["weights"] < 1e-5  # twelve updates at 1e-3 in other orders of sums
    assert ("model.safetensors" in found["files"]) == scenario.endswith("ddp")


@pytest.mark.parametrize("mode", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_a_state_that_is_taken_along_is_so_by_any_number_of_processes(
    mode: str, corpus: Path, tmp_path: Path
) -> None:
    found = found_by(f"streams-{mode}", corpus, tmp_path)
    assert found["codes"] == [[-9], [-9] * 2, [0] * 3]
    chosen = resolve(recurrent(settings(corpus)), "test")
    plan = plan_blocks(Corpus.open(corpus).split("train"), chosen.data.context_length)
    single = Loader(plan, batch_size=20, seed=chosen.training.seed, streams=True).order(0, 160).tolist()
    for at, rank, world, samples in found["samples"]:
        first, stop = part(20, rank, world)
        if len(samples) == stop - first:  # the trial of the plan takes other rows
            assert samples == single[at + first : at + stop]
    for ours, straight in [*found["losses"], *found["validation"], *found["averaged"]]:
        assert ours == pytest.approx(straight, rel=1e-5)
    assert found["tokens"][0] == found["tokens"][1]
    assert found["weights"] < 1e-5


@pytest.mark.parametrize("mode", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_what_fails_on_one_process_ends_all(mode: str, corpus: Path, tmp_path: Path) -> None:
    found = found_by(f"failing-{mode}", corpus, tmp_path)
    for name, kind, message in (
        ("batch", "DataError", "token 7 is out of range"),
        ("disk", "DataError", "step-000006: cannot be written (No space left on device)"),
        ("nonfinite", "NonFiniteError", "the loss of step 5 is not finite, in a batch of"),
        ("signal", "Interrupted", "stopped by signal 15 after step 5 of 12; the state is saved"),
    ):
        first, second = found[name]["ranks"]
        assert found[name]["codes"] == [0, 0]
        assert (first[0], first[2], second[2]) == (kind, False, True), name  # the first alone tells it
        assert message in first[1]
        assert "\n" not in first[1]
        assert second[1] == first[1] or name == "disk"
        assert found[name]["kept"][0] == "step-000003"
    assert "No space left on device" in found["disk"]["ranks"][1][1]
    assert found["disk"]["kept"] == ["step-000003"]
    assert found["nonfinite"]["last"]["documents"]
    assert found["signal"]["kept"] == ["step-000003", "step-000005"]
    for name in ("killed", "mistake", "hung"):
        kind, message, told, _ = found[name]["ranks"][0]
        assert (kind, told) == ("ProcessLost", False)
        assert "go on with --resume" in message
        assert found[name]["kept"] == ["step-000003"]
    first, second = found["record"]["ranks"]
    assert first[:3] == ["DataError", first[1], False]
    assert "metrics.jsonl: cannot be written (No space left on device)" in first[1]
    assert (second[0], "Its own message says why" in second[1]) == ("ProcessLost", True)
    assert found["killed"]["codes"] == [0, -9]
    assert found["mistake"]["ranks"][1][:2] == ["TypeError", "a mistake of ours"]


def test_who_checks_long_at_the_start_is_not_lost_and_who_hangs_later_is(corpus: Path, tmp_path: Path) -> None:
    found = found_by("waiting-ddp", corpus, tmp_path)
    assert found["codes"] == [0, 0]
    assert found["ranks"][1] == ["checked", "ProcessLost"]


def test_no_thread_of_a_group_ends_a_process_that_is_done(corpus: Path, tmp_path: Path) -> None:
    """One that asks for Python's lock while the interpreter ends would abort it: signal 6 after a good run."""
    codes = found_by("ending-ddp", corpus, tmp_path)["codes"]
    assert codes == [[0, 0]] * len(codes)


def torchrun(*words: object) -> subprocess.CompletedProcess[str]:
    line = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "lmwright",
    ]
    return subprocess.run(
        [*line, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_torchrun_trains_from_the_same_run_file_and_one_process_goes_on(corpus: Path, tmp_path: Path) -> None:
    run, chosen = tmp_path / "run", settings(corpus, parallel="fsdp", eval_every=6)
    words = [f"{table}.{key}={json.dumps(value)}" for table, them in chosen.items() for key, value in them.items()]
    done = torchrun("pretrain", "--out", run, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("parameters ") == 1  # one process speaks
    assert done.stdout.count("done ") == 1
    records = RunDirectory(run).metrics()
    assert [record["step"] for record in records if record["kind"] == "step"] == list(range(1, 13))
    assert [record["step"] for record in records if record["kind"] == "evaluation"] == [6, 12]
    assert records[0]["processes"] == 2
    assert load_model(run / "checkpoints" / "step-000012").num_parameters() > 0
    again = torchrun("pretrain", "--out", run, *words)
    assert again.returncode != 0
    assert again.stderr.count("already holds a run") == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, SINGLE),
        ({"WORLD_SIZE": "1"}, SINGLE),
        ({"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}, Ranks(1, 4, 1, 2)),
        ({"RANK": "1", "WORLD_SIZE": "4", "MASTER_PORT": ""}, None),
        ({"RANK": "4", "WORLD_SIZE": "4"}, None),
        ({"RANK": "x", "WORLD_SIZE": "4"}, None),
        ({"WORLD_SIZE": "2"}, None),
    ],
)
def test_processes_are_numbered_by_torchrun(
    given: dict[str, str], expected: Ranks | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"MASTER_ADDR": "localhost", "MASTER_PORT": "1", **given}.items():
        monkeypatch.setenv(name, value)
    if expected is not None:
        assert of_environment() == expected
        return
    from lmwright.errors import ConfigError

    with pytest.raises(ConfigError, match="do not number the processes"):
        of_environment()


def test_more_processes_than_sequences_are_refused_before_anything_is_written(
    corpus: Path, tmp_path: Path
) -> None:
    from lmwright.errors import ConfigError
    from lmwright.recipes.pretrain import plan_run

    chosen = settings(corpus, batch_size=3, micro_batch_size=3)
    with pytest.raises(ConfigError, match=r"batch_size = 3: is less than the 4 processes"):
        plan_run(chosen, "test", ranks=Ranks(0, 4, 0, 4))
    assert to_dict(plan_run(chosen, "test", ranks=Ranks(0, 3, 0, 3)).config)["training"]["batch_size"] == 3
