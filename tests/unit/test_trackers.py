"""Trackers: what the log holds is mirrored number by number, a failing one is dropped, a missing one is refused.

wandb and trackio are stood in for by modules with the parameters of wandb 0.31 and trackio 0.43, so an argument
that they do not know is an error here too; where the real ones are installed, that is checked against them.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import inspect
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from report_runs import records

from lmwright import seams
from lmwright.errors import ConfigError
from lmwright.train.trackers import hyperparameters, numbers, open_trackers, require

CONFIG = {"training": {"steps": 3, "optimizer": {"betas": [0.9, 0.95]}, "clip": None}, "data": {"corpus": "c"}}
FLAT = {
    "training.steps": 3, "training.optimizer.betas": "[0.9, 0.95]", "training.clip": "None", "data.corpus": "c",
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    place = tmp_path / "run 1"
    place.mkdir()
    (place / "env.json").write_text("{}")
    return place


class WandbHandle:
    """A run of wandb, as far as it is used here; `step` is the next one that the server lacks."""

    def __init__(self, calls: list[tuple[str, Any]], step: int) -> None:
        self.calls = calls
        self.step = step

    def finish(self) -> None:
        self.calls.append(("finish", None))

    def log(self, data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        self.calls.append(("log", (step, dict(data))))


class TrackioHandle:
    """A run of trackio, as far as it is used here."""

    def __init__(self, calls: list[tuple[str, Any]]) -> None:
        self.calls = calls

    def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
        self.calls.append(("log", (step, dict(metrics))))


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def wandb(monkeypatch):
    calls: list[tuple[str, Any]] = []
    calls_of = types.SimpleNamespace(calls=calls, server_step=0)

    def init(
        *, entity=None, project=None, dir=None, id=None, name=None, notes=None, tags=None, config=None, group=None,
        job_type=None, mode=None, allow_val_change=None, reinit=None, resume=None, settings=None,
    ):  # fmt: skip
        calls.append(("init", {k: v for k, v in locals().items() if k != "calls" and v is not None}))
        return WandbHandle(calls, calls_of.server_step)

    def settings(*, console: str) -> dict[str, str]:
        return {"console": console}

    stand_in(monkeypatch, "wandb", init=init, Settings=settings)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return calls_of


@pytest.fixture
def trackio(monkeypatch):
    calls: list[tuple[str, Any]] = []

    def init(
        project, name=None, group=None, space_id=None, config=None, resume="never", settings=None, private=None,
        embed=True, auto_log_gpu=None, auto_log_cpu=None,
    ):  # fmt: skip
        print("* Trackio project initialized")
        calls.append(("init", {k: v for k, v in locals().items() if k != "calls" and v is not None}))
        return TrackioHandle(calls)

    def finish() -> None:
        calls.append(("finish", None))

    stand_in(monkeypatch, "trackio", init=init, finish=finish)
    return types.SimpleNamespace(calls=calls)


def logged(calls: list[tuple[str, Any]]) -> list[Any]:
    return [value for what, value in calls if what == "log"]


def test_numbers_are_named_by_kind_and_nothing_else_is_taken():
    record = {
        "kind": "step",
        "step": 7,
        "loss": 2.5,
        "tokens": 9,
        "flag": True,
        "name": "x",
        "none": None,
        "l": [1],
    }
    assert numbers(record) == {"train/loss": 2.5, "train/tokens": 9}
    assert numbers({"kind": "evaluation", "step": 7, "loss": 2.0}) == {"evaluation/loss": 2.0}
    assert numbers({"kind": "checkpoint", "step": 7, "name": "step-000007"}) == {}


def test_hyperparameters_are_dotted_and_plain():
    assert hyperparameters(CONFIG) == FLAT


def test_the_trackers_are_the_files():
    assert seams.names("lmwright.train.trackers") == ("tensorboard", "trackio", "wandb")
    for name in seams.names("lmwright.train.trackers"):
        module = seams.load("lmwright.train.trackers", name)
        assert name == module.LIBRARY
        assert list(inspect.signature(module.open_tracker).parameters) == ["run", "config"]


def test_wandb_gets_every_record_at_its_step(run, wandb):
    (tracker,) = open_trackers(["wandb"], run, CONFIG)
    tracker.write({"kind": "start", "step": 0, "threads": 2})
    tracker.write({"kind": "step", "step": 1, "loss": 3.0})
    tracker.write({"kind": "evaluation", "step": 1, "loss": 3.5})
    tracker.write({"kind": "checkpoint", "step": 1, "name": "step-000001"})
    tracker.close()
    (first, given), *rest = wandb.calls
    assert first == "init"
    assert given["config"] == FLAT
    assert (given["project"], given["name"], given["resume"]) == ("lmwright", "run 1", "allow")
    assert given["settings"] == {"console": "off"}
    assert Path(given["dir"]) == run / "trackers" / "wandb"
    assert rest == [
        ("log", (0, {"start/threads": 2})),
        ("log", (1, {"train/loss": 3.0})),
        ("log", (1, {"evaluation/loss": 3.5})),
        ("finish", None),
    ]


def test_wandb_resumes_the_same_run_and_is_not_sent_what_it_has(run, wandb):
    (tracker,) = open_trackers(["wandb"], run, CONFIG)
    tracker.close()
    wandb.server_step = 6
    moved = run.rename(run.with_name("moved"))
    (tracker,) = open_trackers(["wandb"], moved, CONFIG)
    for step in (4, 5, 6, 7):
        tracker.write({"kind": "step", "step": step, "loss": 1.0})
    ids = [given["id"] for what, given in wandb.calls if what == "init"]
    assert ids[0] == ids[1]
    assert [step for step, _ in logged(wandb.calls)] == [6, 7]


def test_an_id_is_one_of_wandb_s_and_another_for_a_run_made_anew(run, wandb):
    ids = []
    for made in (1, 2):
        os.utime(run / "env.json", ns=(made, made))
        open_trackers(["wandb"], run, CONFIG)
        ids.append(wandb.calls[-1][1]["id"])
        shutil.rmtree(run / "trackers")  # as --force does
    assert len(set(ids)) == 2
    assert all(one.startswith("run-1-") and not set(one) & set("/\\#?%: ") for one in ids)


def test_wandb_s_project_is_the_user_s_where_there_is_one(run, wandb, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    open_trackers(["wandb"], run, CONFIG)
    assert wandb.calls[0][1]["project"] == "mine"


def test_trackio_gets_every_record_and_leaves_standard_output_alone(run, trackio, capsys):
    for _ in range(2):
        (tracker,) = open_trackers(["trackio"], run, CONFIG)
        tracker.write({"kind": "step", "step": 1, "loss": 3.0})
        tracker.write({"kind": "checkpoint", "step": 1, "name": "step-000001"})
        tracker.close()
    given = [value for what, value in trackio.calls if what == "init"]
    assert given[0] == given[1]
    assert (given[0]["config"], given[0]["resume"], given[0]["project"]) == (FLAT, "allow", "lmwright")
    assert not any(given[0][name] for name in ("embed", "auto_log_gpu", "auto_log_cpu"))
    assert logged(trackio.calls) == [(1, {"train/loss": 3.0})] * 2
    assert capsys.readouterr().out == ""


def test_a_tracker_that_fails_warns_once_and_the_others_go_on(run, wandb, trackio, monkeypatch):
    warned: list[str] = []
    both = open_trackers(["wandb", "trackio"], run, CONFIG, warn=warned.append)

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionResetError("no network")

    monkeypatch.setattr(WandbHandle, "log", fail)
    monkeypatch.setattr(WandbHandle, "finish", fail)
    for step in (1, 2, 3):
        for tracker in both:
            tracker.write({"kind": "step", "step": step, "loss": 1.0})
    for tracker in both:
        tracker.close()
    assert len(warned) == 1
    assert "wandb: fails (ConnectionResetError: no network)" in warned[0]
    assert [step for step, _ in logged(trackio.calls)] == [1, 2, 3]


def test_closing_may_fail_too_and_closing_twice_is_nothing(run, wandb, monkeypatch, capsys):
    (tracker,) = open_trackers(["wandb"], run, CONFIG)
    tracker.close()
    tracker.close()
    assert [what for what, _ in wandb.calls] == ["init", "finish"]
    (tracker,) = open_trackers(["wandb"], run, CONFIG)
    monkeypatch.setattr(WandbHandle, "finish", lambda self: 1 / 0)
    tracker.close()
    tracker.close()
    assert capsys.readouterr().err.count("lmwright: wandb: fails (ZeroDivisionError") == 1


def test_an_interrupt_is_not_taken_for_a_failure(run, wandb, monkeypatch):
    (tracker,) = open_trackers(["wandb"], run, CONFIG)

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(WandbHandle, "log", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tracker.write({"kind": "step", "step": 1, "loss": 1.0})


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_missing_library_is_refused_with_the_command_that_installs_it(run, monkeypatch, name):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=rf"{name} needs the package {name}: pip install lmwright\[trackers\]"):
        open_trackers([name], run, CONFIG)
    assert not (run / "trackers").exists()


def test_what_cannot_be_opened_is_refused_and_what_was_open_is_closed(run, trackio, wandb, monkeypatch):
    def init(**_: Any) -> None:
        raise RuntimeError("no API key")

    monkeypatch.setattr(sys.modules["wandb"], "init", init)
    with pytest.raises(ConfigError, match=r"wandb cannot be opened \(RuntimeError: no API key\)"):
        open_trackers(["trackio", "wandb"], run, CONFIG)
    assert trackio.calls[-1] == ("finish", None)


def test_a_library_that_is_not_whole_is_refused(run, wandb, monkeypatch):
    def init(**_: Any) -> None:
        raise ModuleNotFoundError("No module named 'protobuf'")

    monkeypatch.setattr(sys.modules["wandb"], "init", init)
    with pytest.raises(ConfigError, match=r"cannot be imported \(No module named 'protobuf'\)"):
        open_trackers(["wandb"], run, CONFIG)


def test_an_unknown_or_a_repeated_name_is_refused(wandb):
    with pytest.raises(ConfigError, match=r"did you mean|allowed: tensorboard, trackio, wandb"):
        require(["wandbb"])
    with pytest.raises(ConfigError, match="named twice"):
        require(["wandb", "wandb"])


def test_no_tracker_is_nothing(run):
    assert open_trackers([], run, CONFIG) == ()
    assert not (run / "trackers").exists()


def test_trackers_import_no_torch():
    code = (
        "import sys, lmwright.train.trackers; sys.exit(bool({'torch', 'wandb', 'tensorboard'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def scalars(place: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(place), size_guidance={"scalars": 0})
    found.Reload()
    return {name: [(one.step, one.value) for one in found.Scalars(name)] for name in found.Tags()["scalars"]}


def written(names: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    wanted: dict[str, list[tuple[int, float]]] = {}
    for record in names:
        for name, value in numbers(record).items():
            wanted.setdefault(name, []).append((record["step"], pytest.approx(value, rel=1e-6)))
    return wanted


def test_tensorboard_reads_back_every_number_of_the_log(run):
    pytest.importorskip("tensorboard")
    log = records(40)
    (tracker,) = open_trackers(["tensorboard"], run, CONFIG)
    for record in log:
        tracker.write(record)
    tracker.close()
    assert scalars(run / "trackers" / "tensorboard") == written(log)


def test_tensorboard_hides_what_a_resumed_run_redoes(run):
    pytest.importorskip("tensorboard")
    log = [record for record in records(40) if record["kind"] in ("start", "step")]
    (tracker,) = open_trackers(["tensorboard"], run, CONFIG)
    for record in log[:26]:  # up to step 25; the last checkpoint was of step 20
        tracker.write({**record, "loss": 99.0} if record["step"] > 20 else record)
    tracker.close()
    (tracker,) = open_trackers(["tensorboard"], run, CONFIG)
    again = [{"kind": "start", "step": 20, "threads": 2}, *log[21:]]
    for record in again:
        tracker.write(record)
    tracker.close()
    found = scalars(run / "trackers" / "tensorboard")
    assert found["train/loss"] == written(log)["train/loss"]


def test_tensorboard_keeps_the_configuration(run):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    (tracker,) = open_trackers(["tensorboard"], run, CONFIG)
    tracker.write({"kind": "start", "step": 0})
    tracker.close()
    found = EventAccumulator(str(run / "trackers" / "tensorboard"))
    found.Reload()
    content = found.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    given = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    kept = {name: getattr(value, value.WhichOneof("kind")) for name, value in given.items()}
    assert kept == FLAT


def test_the_stand_in_for_wandb_knows_no_more_than_wandb_does(wandb):
    stood_in = inspect.signature(sys.modules.pop("wandb").init)
    real = pytest.importorskip("wandb")
    assert set(stood_in.parameters) <= set(inspect.signature(real.init).parameters)
    mine, theirs = inspect.signature(WandbHandle.log), inspect.signature(real.Run.log)
    assert list(mine.parameters) == list(theirs.parameters)
    assert real.Settings(console="off").console == "off"
    assert isinstance(real.Run.step, property)


def test_the_stand_in_for_trackio_knows_no_more_than_trackio_does(trackio):
    stood_in = inspect.signature(sys.modules.pop("trackio").init)
    real = pytest.importorskip("trackio")
    assert not inspect.signature(real.finish).parameters
    assert set(stood_in.parameters) <= set(inspect.signature(real.init).parameters)
    assert list(inspect.signature(TrackioHandle.log).parameters) == list(
        inspect.signature(real.Run.log).parameters
    )


REAL = """
import json, sys
from pathlib import Path
from lmwright.train.trackers import open_trackers
name, run, log = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
(tracker,) = open_trackers([name], run, {"a": {"b": 1}})
for record in log:
    tracker.write(record)
tracker.close()
"""


def real(name: str, run: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Mirror a short log with the real library, offline, in a process of its own: it may leave threads."""
    own = {"WANDB_MODE": "offline", "TRACKIO_DIR": str(folder), "HF_HUB_OFFLINE": "1", "HOME": str(folder)}
    environment = {**os.environ, **own}
    log = json.dumps([{"kind": "step", "step": step, "loss": 2.0 / step} for step in (1, 2, 3)])
    line = [sys.executable, "-c", REAL, name, str(run), log]
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=True)


def test_the_real_wandb_keeps_the_run_offline(run, tmp_path):
    pytest.importorskip("wandb")
    for _ in range(2):
        done = real("wandb", run, tmp_path)
        assert "lmwright: wandb: fails" not in done.stderr
        assert done.stdout == ""
    name = (run / "trackers" / "wandb" / "id").read_text().strip()
    kept = list((run / "trackers" / "wandb" / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb"))
    assert len(kept) == 2
    assert all(b"train/loss" in place.read_bytes() for place in kept)


def test_the_real_trackio_keeps_every_number(run, tmp_path):
    pytest.importorskip("trackio")
    done = real("trackio", run, tmp_path)
    assert "lmwright: trackio: fails" not in done.stderr
    assert done.stdout == ""
    with contextlib.closing(sqlite3.connect(tmp_path / "lmwright.db")) as base:
        found = base.execute("select step, metrics from metrics order by step").fetchall()
    assert [(step, json.loads(values)) for step, values in found] == [
        (step, {"train/loss": 2.0 / step}) for step in (1, 2, 3)
    ]
