"""A run that is broken off and resumed ends with the very bits of one that was not."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import make_corpus, recurrent, settings, weights

from lmwright.cli import main
from lmwright.config import merge
from lmwright.errors import CheckpointError, ConfigError, DataError
from lmwright.recipes.pretrain import pretrain, resume
from lmwright.recipes.pretrain_config import resolve
from lmwright.runs import RunDirectory
from lmwright.train.optimizers.adamw import AdamW


class PowerCut(Exception):
    """What stands for a process that ends without a word."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("resume"))


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that lets the updates fail from the n-th on; None lets them work again."""
    real = AdamW.step

    def after(updates: int | None) -> None:
        left = [updates]

        def step(self: AdamW, lr: float) -> None:
            if left[0] is not None:
                left[0] -= 1
                if left[0] < 0:
                    raise PowerCut
            real(self, lr)

        monkeypatch.setattr(AdamW, "step", step)

    return after


def quiet(text: str) -> None:
    """Say nothing."""


def broken_run(run: Path, chosen: dict[str, Any], cut: Any, cuts: list[int]) -> None:
    """Train with a power cut after each of these numbers of updates (the trial before the run makes some, too)."""
    cut(None)
    started = False
    for updates in cuts:
        with pytest.raises(PowerCut):
            resume_and_cut(run, cut, updates) if started else start_and_cut(run, chosen, cut, updates)
        started = True
    cut(None)
    resume(run, say=quiet)


def resume_and_cut(run: Path, cut: Any, updates: int) -> None:
    cut(updates)
    resume(run, say=quiet)


def start_and_cut(run: Path, chosen: dict[str, Any], cut: Any, updates: int) -> None:
    import lmwright.recipes.pretrain as recipe

    real = recipe._train

    def train(*arguments: Any) -> Any:
        cut(updates)
        return real(*arguments)

    recipe._train = train  # type: ignore[assignment]
    try:
        pretrain(chosen, run, where="test", say=quiet)
    finally:
        recipe._train = real


CASES: dict[str, dict[str, Any]] = {
    "documents, dropout, ragged, three epochs": {},
    "contiguous": {"data": {"packing": "contiguous"}},
    "bf16": {"training": {"precision": "bf16"}},
    "evaluated": {"training": {"eval_every": 2, "checkpoint_every": 5}},
    "gpt2": {"architecture": {"family": "gpt2"}},
    "lstm": {"architecture": {"family": "lstm"}},
    "lstm, recomputed, in bf16": {
        "architecture": {"family": "lstm"},
        "training": {"activation_checkpointing": True, "precision": "bf16"},
    },
    "wsd, whole batch": {"training": {"micro_batch_size": 20, "schedule": {"name": "wsd"}}},
}


@pytest.mark.parametrize("case", CASES)
def test_interrupted_and_resumed_equals_uninterrupted(case: str, corpus: Path, tmp_path: Path, cut: Any) -> None:
    chosen = merge(settings(corpus), CASES[case])
    if chosen["architecture"]["family"] == "gpt2":
        chosen["architecture"]["ffn_size"] = 64
    if (
        chosen["architecture"]["family"] == "lstm"
    ):  # three epochs; cut in their midst, and resumed across their ends
        chosen = recurrent(chosen)
    final = pretrain(chosen, tmp_path / "straight", where="test", say=quiet)
    assert final.loader["samples"] == 12 * 20
    # Cut before the first checkpoint, between two, twice in the same stretch, and right before the end.
    broken_run(tmp_path / "broken", chosen, cut, [2, 4, 2, 5])
    assert weights(tmp_path / "broken") == weights(tmp_path / "straight")
    assert ("state/carried.safetensors" in weights(tmp_path / "broken")) is case.startswith("lstm")
    assert losses(tmp_path / "broken") == losses(tmp_path / "straight")


def losses(run: Path) -> list[tuple[int, float, float, int]]:
    records = [record for record in RunDirectory(run).metrics() if record["kind"] == "step"]
    return [(record["step"], record["loss"], record["grad_norm"], record["tokens"]) for record in records]


def test_a_recurrent_run_of_packed_documents_begins_each_anew_and_carries_nothing(
    corpus: Path, tmp_path: Path, cut: Any
) -> None:
    chosen = merge(recurrent(settings(corpus)), {"data": {"packing": "documents"}})
    pretrain(chosen, tmp_path / "straight", where="test", say=quiet)
    broken_run(tmp_path / "broken", chosen, cut, [5])
    assert weights(tmp_path / "broken") == weights(tmp_path / "straight")
    assert "state/carried.safetensors" not in weights(tmp_path / "broken")


def test_a_checkpoint_of_shuffled_rows_is_no_beginning_for_streams(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a version that did not take the state along."""
    run, chosen = tmp_path / "run", recurrent(settings(corpus, steps=4))
    with monkeypatch.context() as patch:
        patch.setattr("lmwright.recipes.pretrain_parts.carries", lambda config: False)
        pretrain(chosen, run, where="test", say=quiet)
    with pytest.raises(CheckpointError, match="in a shuffled order, and this run reads them in 20 streams"):
        resume(run, say=quiet)


def test_the_test_can_fail(corpus: Path, tmp_path: Path) -> None:
    pretrain(settings(corpus), tmp_path / "a", where="test", say=quiet)
    pretrain(settings(corpus, seed=1), tmp_path / "b", where="test", say=quiet)
    assert weights(tmp_path / "a") != weights(tmp_path / "b")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", "truncate"),
        ("state/optimizer.safetensors", "flip"),
        ("state/trainer.json", "remove"),
        ("MANIFEST.json", "remove"),
        ("config.json", "truncate"),
        ("tokenizer.json", "flip"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_by_name(name: str, damage: str, corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(settings(corpus), run, where="test", say=quiet)
    whole = weights(run)
    file = run / "checkpoints" / "step-000012" / name
    data = file.read_bytes()
    if damage == "remove":
        file.unlink()
    else:
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        file.write_bytes(flipped if damage == "flip" else data[:middle])
    said: list[str] = []
    resume(run, say=said.append)
    warning = next(line for line in said if "going back" in line)
    assert "step-000012" in warning
    assert Path(name).name in warning
    assert "resuming after step 9 of 12" in said
    assert weights(run) == whole


def test_if_none_is_sound_that_is_said_and_nothing_is_trained(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(settings(corpus), run, where="test", say=quiet)
    for path in run.glob("checkpoints/*/model.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints is sound"):
        resume(run, say=quiet)


def test_what_a_killed_save_left_is_swept_away_and_never_chosen(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(settings(corpus), run, where="test", say=quiet)
    partial = run / "checkpoints" / ".partial-123-step-000013"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    resume(run, say=quiet)
    assert not partial.exists()


def test_a_second_process_is_refused(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(settings(corpus), run, where="test", say=quiet)
    holder = RunDirectory.open(run)
    holder.lock()
    try:
        with pytest.raises(ConfigError, match="another process"):
            resume(run, say=quiet)
    finally:
        holder.close()


def test_other_settings_or_other_data_are_no_resume(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(settings(corpus), run, where="test", say=quiet)
    before = (run / "config.json").read_text()
    config = json.loads(before)
    config["training"]["optimizer"]["lr"] = 0.5
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="not the configuration"):
        resume(run, say=quiet)
    (run / "config.json").write_text(before)
    resume(run, say=quiet)


def test_what_is_no_run_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a run directory"):
        resume(tmp_path, say=quiet)


def test_only_the_newest_checkpoints_are_kept(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(settings(corpus, checkpoint_every=1, keep_checkpoints=3), run, where="test", say=quiet)
    kept = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert kept == ["step-000010", "step-000011", "step-000012"]
    assert (run / "latest").read_text() == "step-000012\n"


@pytest.mark.parametrize(
    "text",
    [
        "[1]",
        "{}",
        "3",
        "null",
        '{"flops": 1}',
        '{"flops": {"per_token": 1}, "peak_flops": 0, "memory_bytes": {"total": 1}, "tokens": 1, "seconds": 1}',
        '{"flops": {"per_token": 1}, "peak_flops": 1, "memory_bytes": {"total": 1}, "tokens": "x", "seconds": 1}',
        '{"flops": {"per_token": NaN}, "peak_flops": 1, "memory_bytes": {"total": 1}, "tokens": 1, "seconds": 1}',
    ],
)
def test_a_damaged_plan_is_named(text: str, corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    RunDirectory.create(run, config=asdict(resolve(settings(corpus), "test"))).close()
    (run / "plan.json").write_text(text)
    with pytest.raises(DataError, match=r"plan\.json: is damaged") as refused:
        resume(run, say=quiet)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"architecture": ', "is not valid JSON"),
        (b"\xff\xfe{}", "is not valid JSON"),
        (b"[1, 2]", "no table of settings; put it back"),
        (b"{}", "setting architecture is missing.*put the file back, or start anew with --force"),
        (b'{"training": 3}', "training = 3: must be a table of settings; .*put the file back"),
        (b'{"flops": 1}', "unknown setting flops.*put the file back"),
    ],
)
def test_a_damaged_configuration_is_named_with_the_remedy(content: bytes, words: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    RunDirectory.create(run, config={}).close()
    (run / "plan.json").write_text("{}")
    (run / "config.json").write_bytes(content)
    with pytest.raises(DataError, match=rf"(?s)config\.json: .*{words}") as refused:
        resume(run, say=quiet)
    assert "\n" not in str(refused.value)
    assert (run / "config.json").read_bytes() == content


def test_a_file_in_place_of_the_checkpoints_is_named(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(settings(corpus), run, where="test", say=quiet)
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").write_text("")
    with pytest.raises(CheckpointError, match="checkpoints: is a file"):
        resume(run, say=quiet)


def test_a_corpus_that_was_moved_can_be_named(corpus: Path, tmp_path: Path, cut: Any) -> None:
    place, moved = tmp_path / "corpus", tmp_path / "elsewhere"
    shutil.copytree(corpus, place)
    pretrain(settings(corpus), tmp_path / "straight", where="test", say=quiet)
    for name, updates in (("run", 4), ("young", 1)):
        with pytest.raises(PowerCut):
            start_and_cut(tmp_path / name, settings(place), cut, updates)
        cut(None)
    run = tmp_path / "run"
    place.rename(moved)
    with pytest.raises(DataError) as refused:
        resume(run, say=quiet)
    for word in (str(place), "put it back", str(run / "corpus"), "--resume --corpus"):
        assert word in str(refused.value)
    with pytest.raises(DataError, match="no checkpoint yet"):
        resume(tmp_path / "young", corpus=moved, say=quiet)
    other = make_corpus(tmp_path / "other", seed=4)
    with pytest.raises(CheckpointError, match="other data") as changed:
        resume(run, corpus=other, say=quiet)
    assert str(changed.value).startswith(
        f"--corpus {other}: is not the corpus that this run began with, which was"
    )
    assert f" {place};" in str(changed.value)
    assert main.run(["pretrain", "--out", str(run), "--resume", "--corpus", str(moved)]) == 0
    assert weights(run) == weights(tmp_path / "straight")


@pytest.mark.parametrize("checkpoints", [True, False])
def test_a_lost_plan_is_made_anew(checkpoints: bool, corpus: Path, tmp_path: Path) -> None:
    """Lost, or never written: the run was killed just before."""
    whole = tmp_path / "whole"
    pretrain(settings(corpus), whole, where="test", say=quiet)
    run = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "step-000012")
    if not checkpoints:
        shutil.rmtree(run / "checkpoints")
    (run / "plan.json").unlink()
    said: list[str] = []
    resume(run, say=said.append)
    assert any("plan.json: is not there; planned anew" in line for line in said)
    assert weights(run) == weights(whole)
    before, after = (json.loads((place / "plan.json").read_text()) for place in (whole, run))
    assert before["flops"] == after["flops"]


def test_other_settings_are_refused_before_anything_is_touched(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(settings(corpus), run, where="test", say=quiet)
    config = json.loads((run / "config.json").read_text())
    config["training"]["seed"] += 1
    (run / "config.json").write_text(json.dumps(config))
    with (run / "metrics.jsonl").open("a") as log:
        log.write('{"kind": "step", "step": 13}\n')
    before, said = (run / "metrics.jsonl").read_bytes(), list[str]()
    with pytest.raises(CheckpointError, match="is not the configuration"):
        resume(run, say=said.append)
    assert said == []
    assert (run / "metrics.jsonl").read_bytes() == before
