"""A fork of a run is, to the bit, the run of its own length; and it can be killed and resumed as any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import make_corpus, recurrent, settings, weights

from lmwright.config import merge
from lmwright.errors import CheckpointError, ConfigError, DataError
from lmwright.recipes.fork import fork
from lmwright.recipes.pretrain import pretrain, resume
from lmwright.runs import RunDirectory

STEADY = {"name": "constant", "warmup_steps": 2}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("fork"))


def given(corpus: Path, steps: int, schedule: dict[str, Any]) -> dict[str, Any]:
    """A run with all that a checkpoint can hold; a schedule replaces the usual one as a whole."""
    usual = settings(corpus, ema_decay=0.9, eval_every=4)
    usual["training"].pop("schedule", None)
    return merge(
        usual, {"training": {"steps": steps, "schedule": schedule, "checkpoint_every": 4, "keep_checkpoints": 9}}
    )


def decay(steps: int) -> dict[str, Any]:
    return {"name": "wsd", "warmup_steps": 2, "decay_steps": steps, "floor": 0.0}


def quiet(text: str) -> None:
    """Say nothing."""


@pytest.mark.parametrize("step", [3, 4])
def test_a_fork_of_a_recurrent_model_takes_its_state_along(corpus: Path, tmp_path: Path, step: int) -> None:
    """In the midst of an epoch, and at its end."""
    chosen = recurrent(merge(given(corpus, step, STEADY), {"training": {"checkpoint_every": 1}}))
    pretrain(chosen, tmp_path / "trunk", where="test", say=quiet)
    longer = {**chosen, "training": {**chosen["training"], "steps": step + 3, "schedule": decay(3)}}
    pretrain(longer, tmp_path / "whole", where="test", say=quiet)
    fork(tmp_path / "trunk", step, tmp_path / "fork", steps=step + 3, schedule=decay(3))
    resume(tmp_path / "fork", say=quiet)
    assert weights(tmp_path / "fork") == weights(tmp_path / "whole")
    assert "state/carried.safetensors" in weights(tmp_path / "fork")


@pytest.fixture(scope="module")
def trunk(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trunk") / "run"
    pretrain(given(corpus, 8, STEADY), run, where="test", say=quiet)
    return run


@pytest.mark.parametrize(("step", "steps"), [(4, 6), (8, 11)])
def test_a_fork_is_the_run_of_its_own_length(
    corpus: Path, trunk: Path, tmp_path: Path, step: int, steps: int
) -> None:
    pretrain(given(corpus, steps, decay(steps - step)), tmp_path / "whole", where="test", say=quiet)
    before = weights(trunk)
    fork(trunk, step, tmp_path / "fork", steps=steps, schedule=decay(steps - step))
    assert resume(tmp_path / "fork", say=quiet).step == steps
    assert weights(tmp_path / "fork") == weights(tmp_path / "whole")
    logs = [
        [
            (record["kind"], record["step"], record.get("loss"), record.get("average_loss"))
            for record in RunDirectory.open(tmp_path / name).metrics()
            if record["kind"] in ("step", "evaluation")
        ]
        for name in ("fork", "whole")
    ]
    assert logs[0] == logs[1]
    assert weights(trunk) == before
    assert resume(tmp_path / "fork", say=quiet).step == steps  # nothing is left to do


def test_a_fork_has_the_plan_of_its_own_length_and_not_the_end_of_its_trunk(
    corpus: Path, trunk: Path, tmp_path: Path
) -> None:
    pretrain(given(corpus, 11, decay(3)), tmp_path / "whole", where="test", say=quiet)
    fork(trunk, 8, tmp_path / "fork", steps=11, schedule=decay(3))
    assert not any(record["kind"] == "end" for record in RunDirectory.open(tmp_path / "fork").metrics())
    plan, whole = (json.loads((tmp_path / name / "plan.json").read_text()) for name in ("fork", "whole"))
    for name in ("steps", "sequences", "tokens", "epochs", "flops", "parameters", "memory_bytes"):
        assert plan[name] == pytest.approx(whole[name]) if name == "epochs" else plan[name] == whole[name], name
    before = json.loads((trunk / "plan.json").read_text())
    assert plan["seconds"] == pytest.approx(11 * before["step_seconds"])
    assert plan["peak_flops"] == before["peak_flops"]


def test_a_fork_of_a_fork(corpus: Path, trunk: Path, tmp_path: Path) -> None:
    """A longer trunk is a fork itself."""
    fork(trunk, 8, tmp_path / "longer", steps=12, schedule=STEADY)
    resume(tmp_path / "longer", say=quiet)
    fork(tmp_path / "longer", 12, tmp_path / "end", steps=14, schedule=decay(2))
    resume(tmp_path / "end", say=quiet)
    pretrain(given(corpus, 14, decay(2)), tmp_path / "whole", where="test", say=quiet)
    assert weights(tmp_path / "end") == weights(tmp_path / "whole")


@pytest.mark.parametrize(
    ("steps", "schedule", "says"),
    [
        (8, decay(0), "must go beyond it"),
        (11, decay(5), r"update 8 would have the learning rate .*let it decay from step 8 on"),
        (11, {"name": "wsd", "warmup_steps": 3, "decay_steps": 3}, "update 1 would have the learning rate"),
        (11, {"name": "wds"}, "wsd"),
    ],
)
def test_another_past_is_refused(
    trunk: Path, tmp_path: Path, steps: int, schedule: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        fork(trunk, 8, tmp_path / "fork", steps=steps, schedule=schedule)
    assert not (tmp_path / "fork").exists()


def test_a_checkpoint_that_is_not_there_or_damaged_is_refused(trunk: Path, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"step-000005: is not there .*step-000004, step-000008"):
        fork(trunk, 5, tmp_path / "fork", steps=11, schedule=decay(3))
    own = tmp_path / "own"
    pretrain(given(corpus, 4, STEADY), own, where="test", say=quiet)
    config = json.loads((own / "config.json").read_text())
    config["training"]["seed"] += 1
    (own / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="is not the configuration"):
        fork(own, 4, tmp_path / "fork", steps=11, schedule=decay(3))
    (own / "checkpoints" / "step-000004" / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        fork(own, 4, tmp_path / "fork", steps=11, schedule=decay(3))
    assert not (tmp_path / "fork").exists()


def test_nothing_is_overwritten_unless_forced(trunk: Path, tmp_path: Path) -> None:
    fork(trunk, 4, tmp_path / "fork", steps=6, schedule=decay(2))
    with pytest.raises(ConfigError, match="--force"):
        fork(trunk, 8, tmp_path / "fork", steps=11, schedule=decay(3))
    fork(trunk, 8, tmp_path / "fork", steps=11, schedule=decay(3), force=True)
    assert [path.name for path in (tmp_path / "fork" / "checkpoints").iterdir()] == ["step-000008"]
