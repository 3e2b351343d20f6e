"""The first complete line on real text: one command, every file of it, and what a second command finds there."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from lmwright import runs
from lmwright.cli import main as cli
from lmwright.config import to_dict
from lmwright.data.build import Corpus
from lmwright.errors import LmwrightError
from lmwright.recipes import quickstart, quickstart_plan
from lmwright.recipes.quickstart import Quickstart
from lmwright.recipes.quickstart_plan import Mini
from lmwright.recipes.quickstart_stages import STAGES
from lmwright.report import catalog
from lmwright.scaling.fit import Fitted

STEPS = 12
# Two lengths of three sizes are the fewest points that a law can be fitted to; too few to hold a rung out.
MINI = Mini(sizes=(33e3, 107e3, 222e3), tokens=1.0, lengths=2, draws=20)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real text: three packages of the standard library, in a folder of the user's own."""
    folder = tmp_path_factory.mktemp("text")
    library = Path(sysconfig.get_paths()["stdlib"])
    for name in ("json", "logging", "email"):
        shutil.copytree(library / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "broken.py").write_bytes(b"\xff\xfe not UTF-8")
    return folder


@pytest.fixture(scope="module")
def told() -> list[str]:
    """What the first quickstart said, once `run` was asked for."""
    return []


@pytest.fixture(scope="module")
def seconds() -> dict[str, float]:
    """The seconds that the first quickstart kept: tests run in any order, and a second one writes its own."""
    return {}


@pytest.fixture(scope="module")
def run(
    corpus: Path, tmp_path_factory: pytest.TempPathFactory, told: list[str], seconds: dict[str, float]
) -> Path:
    """A quickstart that was killed after its ladder and again after its law, and begun again each time."""
    out = tmp_path_factory.mktemp("runs") / "quick"
    asked = Quickstart(corpus=str(corpus), vocab_size=512, steps=STEPS, ladder=MINI)
    for stage in ("fit", "plan"):
        with pytest.raises(Killed):
            quickstart.quickstart(asked, out, say=killed_at(stage))
    assert json.loads((out / "ladder" / "ladder.json").read_text())["runs"]
    assert not (out / "config.json").exists()
    quickstart.quickstart(asked, out, say=told.append)
    seconds.update(json.loads((out / "quickstart.json").read_text())["seconds"])
    return out


class Killed(Exception):
    """Stands for the end of the process at the beginning of a stage."""


def killed_at(stage: str) -> Callable[[str], None]:
    def say(text: str) -> None:
        if f"] {stage}: " in text:
            raise Killed(stage)

    return say


def command(corpus: Path, out: Path, *more: str) -> list[str]:
    sizes = ["--vocab-size", "512", "--steps", str(STEPS)]
    return ["quickstart", "--corpus", str(corpus), "--out", str(out), *sizes, *more]


def contents(run: Path) -> list[tuple[str, int]]:
    return sorted((path.name, path.stat().st_mtime_ns) for path in run.iterdir() if "LOCK" not in path.name)


def test_every_promised_file_is_there(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    others = {"corpus", "ladder", "law.json", "quickstart.json"}
    assert names - {"LOCK", "QUICKSTART_LOCK"} == {*others, *runs.RUN_FILES} - {"trackers"}


def test_a_law_of_the_ladder_foretold_the_run(run: Path, told: list[str]) -> None:
    law = Fitted.from_json((run / "law.json").read_text(), "law.json")
    assert (law.law, law.points, law.runs, law.convention) == ("chinchilla", 6, 3, "chinchilla")
    kept = json.loads((run / "plan.json").read_text())["budget"]
    assert (kept["steps"], kept["law"]["own"], kept["law"]["level"]) == (STEPS, True, 0.95)
    assert kept["loss"]["low"] < kept["loss"]["loss"] < kept["loss"]["high"]
    predicted = law.predict(
        {"parameters": [kept["parameters"]["total"]], "tokens": [kept["tokens"]]}, law.convention
    )
    assert kept["loss"]["loss"] == pytest.approx(predicted.loss[0])
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    measured = [record for record in records if record["kind"] == "evaluation"][-1]["loss"]
    within = kept["loss"]["low"] <= measured <= kept["loss"]["high"]
    assert f"{measured:.4f} nats/token on the validation split, " in told[-1]
    assert told[-1].endswith("within it" if within else "outside it")


def test_the_seconds_of_every_stage_are_kept_and_told(
    run: Path, told: list[str], seconds: dict[str, float]
) -> None:
    """Of those before a kill, too; that which was killed was begun anew."""
    assert list(seconds) == list(STAGES)
    assert all(value >= 0 for value in seconds.values())
    line = told[-2]
    assert line.startswith(f"seconds       gather {seconds['gather']:.1f}, tokenizer ")
    assert line.endswith(f", report {seconds['report']:.1f}; {sum(seconds.values()):,.0f} in all")


def test_what_was_done_before_a_kill_was_not_done_again(run: Path, told: list[str]) -> None:
    said = "\n".join(told)
    assert "is built already" in said
    assert "law.json: is fitted already" in said
    stages = [line.split("] ")[1].split(":")[0] for line in told if line.startswith("\n[")]
    assert stages == list(STAGES[STAGES.index("plan") :])


def test_the_runs_of_the_ladder_are_no_runs_of_their_own(run: Path) -> None:
    assert [entry.path for entry in catalog.find([run.parent])] == [run]


def test_the_summary_can_be_recomputed(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())["numbers"]
    facts = json.loads((run / "evaluation.json").read_text())
    assert summary["bits_per_byte"]["value"] == pytest.approx(facts["nats"] / math.log(2) / facts["bytes"])
    assert summary["validation_loss"]["value"] == pytest.approx(facts["nats"] / facts["tokens"])
    assert summary["steps"]["value"] == STEPS


def test_training_taught_the_model_something(run: Path) -> None:
    facts = json.loads((run / "evaluation.json").read_text())
    assert facts["nats"] / facts["tokens"] < 0.95 * math.log(512)


def test_the_rejected_file_is_named(run: Path) -> None:
    assert "broken.py" in (run / "corpus" / "rejects.jsonl").read_text()


def test_transformers_agreed_with_the_export(run: Path) -> None:
    verdict = json.loads((run / "verification.json").read_text())
    assert verdict["verified"] is True
    assert verdict == json.loads((run / "model" / "verification.json").read_text())
    runs.verify_manifest(run / "model")


def test_the_export_and_the_run_answer_alike(run: Path) -> None:
    import lmwright as lm

    prompt = "def loads(s, *,"
    from_run, from_export = (lm.load(place).generate(prompt, temperature=0) for place in (run, run / "model"))
    assert from_run.token_ids == from_export.token_ids


def test_a_ladder_goes_on_as_it_was_begun(corpus: Path, tmp_path: Path, run: Path) -> None:
    """Though the run that it is for is now to be another one, as long as there is none."""
    shutil.copytree(run / "corpus", tmp_path / "corpus")
    asked: list[object] = []

    def climb(given: object, out: Path, **more: object) -> None:
        asked.append(given)
        out.mkdir(exist_ok=True)
        (out / "ladder.json").write_text(json.dumps({"asked": to_dict(given)}))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quickstart_plan, "ladder", climb)
        for steps in (10, 1000):
            opened = Corpus.open(tmp_path / "corpus")
            quickstart_plan.climb(MINI, opened, tmp_path, minutes=None, steps=steps, seed=3, say=print)
    assert asked[0] == asked[1]
    other = Quickstart(corpus=Corpus.open(tmp_path / "corpus").facts.source, vocab_size=512, seed=4)
    with pytest.raises(LmwrightError, match="begun with seed = 3, not 4"):
        quickstart._refuse_other(other, tmp_path, False, print)


def test_force_removes_a_ladder_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "ladder").mkdir()
    (tmp_path / "ladder" / "notes.txt").write_text("mine")
    with pytest.raises(LmwrightError, match="is no ladder"):
        quickstart_plan.clear(tmp_path)
    (tmp_path / "ladder" / "ladder.json").write_text("{}")
    (tmp_path / "law.json").write_text("{}")
    quickstart_plan.clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_same_command_again_redoes_no_training(run: Path, corpus: Path, capsys) -> None:
    def trained() -> list[int]:
        return [path.stat().st_mtime_ns for path in sorted(run.glob("checkpoints/*/model.safetensors"))]

    before, steps = trained(), len((run / "metrics.jsonl").read_text().splitlines())
    assert cli.run(command(corpus, run)) == 0
    assert "built already" in capsys.readouterr().out
    assert trained() == before
    assert len((run / "metrics.jsonl").read_text().splitlines()) == steps


def test_minutes_of_a_run_that_has_begun_are_told_and_not_refused(run: Path, corpus: Path) -> None:
    """What stopped it advised the same command, and that may have held --minutes."""
    asked = quickstart.Quickstart(corpus=str(corpus), minutes=1.0, vocab_size=512)
    said: list[str] = []
    quickstart._refuse_other(asked, run, False, said.append)
    assert [line.partition(": ")[2] for line in said] == [
        f"goes on to the {STEPS} steps it was begun with; --force starts anew"
    ]


@pytest.mark.parametrize("more", [["--seed", "1"], ["--vocab-size", "600"], ["--steps", "13"]])
def test_other_settings_are_refused_without_force(run: Path, corpus: Path, capsys, more: list[str]) -> None:
    before = contents(run)
    assert cli.run(command(corpus, run, *more)) == 2
    assert "--force" in capsys.readouterr().err
    assert contents(run) == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--corpus", "/nowhere/at/all"], "does not exist"),
        (["--vocab-size", "3"], "257"),
        (["--steps", "0"], ">= 1"),
        (["--minutes", "1"], "give one"),
        (["--vocab-size", "1000000"], "too small for a vocabulary"),
    ],
)
def test_nonsense_is_one_line_and_leaves_nothing(corpus: Path, tmp_path: Path, capsys, more, said) -> None:
    out = tmp_path / "out"
    assert cli.run(command(corpus, out, *more)) in (1, 2)
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (out / "config.json").exists()


def test_a_killed_build_is_no_obstacle(corpus: Path, tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    (tmp_path / f"{runs.PARTIAL}{int(dead.stdout)}-corpus").mkdir()
    runs.RunDirectory.create(tmp_path, config={}).close()
    (tmp_path / "config.json").unlink()  # killed before its plan was written
    with pytest.raises(Killed):
        quickstart.quickstart(
            Quickstart(corpus=str(corpus), vocab_size=300, steps=1), tmp_path, say=killed_at("ladder")
        )
    assert (tmp_path / "corpus" / "corpus.json").is_file()
    assert not list(tmp_path.glob(f"{runs.PARTIAL}*"))


def test_the_run_of_another_corpus_is_not_taken_over(run: Path, corpus: Path, tmp_path: Path, capsys) -> None:
    with runs.RunDirectory.create(tmp_path, config={"data": {"corpus": str(run / "corpus")}}):
        pass
    assert cli.run(command(corpus, tmp_path)) == 2
    assert "no quickstart began" in capsys.readouterr().err
    assert not (tmp_path / "corpus").exists()


def test_a_directory_with_other_files_is_left_alone(corpus: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "diary.txt").write_text("mine")
    assert cli.run(command(corpus, tmp_path, "--force")) == 2
    assert "diary.txt" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]
