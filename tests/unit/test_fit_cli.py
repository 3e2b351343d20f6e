"""`lmwright fit`: what it prints and writes, and refusals in one line that name what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from scaling_runs import planted, write_csv, write_run

from lmwright.cli.main import run
from lmwright.scaling.fit import Fitted
from lmwright.scaling.points import LABELS, MARKS, NUMBERS

DRAWS = ["--draws", "20"]


@pytest.fixture
def csv(tmp_path: Path) -> str:
    return str(write_csv(tmp_path / "points.csv", planted(0.005)))


def fitted(*words: str) -> int:
    return run(["fit", *words, *DRAWS])


def test_the_law_is_printed_written_and_drawn(
    csv: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, figures = tmp_path / "law.json", tmp_path / "figures"
    assert fitted(csv, "--convention", "chinchilla", "--out", str(out), "--figures", str(figures)) == 0
    text = capsys.readouterr().out
    assert "law chinchilla, fitted to 15 points of 15 runs; N counted as chinchilla" in text
    assert "held out: the largest rung, 1 point of up to 4.8e+18 FLOPs, predicted from the 14 others" in text
    assert "  3 parametric  0." in text
    law = Fitted.from_json(out.read_text(), "law.json")
    assert law.points == 15
    assert len(law.draws) == 20
    names = {"frontier", "residuals", "loss-against-data"}
    assert {path.stem for path in figures.glob("*.svg")} == names
    assert text.endswith(
        "".join(f"{figures / name}.svg\n" for name in ("frontier", "residuals", "loss-against-data"))
    )


def test_json_is_the_same_in_numbers(csv: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fitted(csv, "--convention", "kaplan", "--json", "--law", "over_training") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["law"], found["convention"], found["chosen"]) == ("over_training", "kaplan", "as asked")
    assert set(found["parameters"]) == {"a", "b", "E", "eta"}
    [held] = found["held_out"]
    assert held["error"] == pytest.approx(held["predicted"] / held["measured"] - 1)
    assert held["interval"][0] < held["predicted"] < held["interval"][1]


def test_nothing_is_held_out_where_it_is_not_wanted(csv: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fitted(csv, "--convention", "kaplan", "--hold-out", "none") == 0
    assert "the largest rung was not held out: as asked" in capsys.readouterr().out


def test_finished_runs_are_fitted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for steps in (10, 20, 40, 80):
        loss = 3 + 20 / steps
        write_run(tmp_path / "runs" / f"s{steps}", steps=steps, loss=loss, corpus_tokens=1e6, first_seconds=steps)
    write_run(tmp_path / "runs" / "broken", steps=160, stopped_at=100, corpus_tokens=1e6)
    assert fitted(str(tmp_path / "runs")) == 0
    text = capsys.readouterr().out
    assert "law power_data, fitted to 4 points of 4 runs; N counted as chinchilla, loss in nats/token" in text
    assert "chosen: the points have one size" in text
    assert "warning: 1 of 5 points are left out: their schedule was cut before its end" in text


def test_groups_are_fitted_apart_compared_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, figures = tmp_path / "points.csv", tmp_path / "figures"
    rows = [
        f"{n},{d},{2 + scale * n**-0.3 + 900 * d**-0.3},{kind}"
        for kind, scale in (("llama", 300), ("lstm", 500))
        for n in (1e6, 4e6, 1.6e7)
        for d in (1e7, 1e8, 1e9)
    ]
    path.write_text("\n".join(["N,D,loss,domain", *rows]) + "\n")
    words = [str(path), "--convention", "kaplan", "--by", "domain", "--figures", str(figures)]
    assert fitted(*words) == 0
    text = capsys.readouterr().out
    assert text.startswith("domain llama\n  law chinchilla, fitted to 9 points of 9 runs")
    assert "\ndomain lstm\n" in text
    assert text.count("held out: the largest rung, 1 point") == 2
    assert "compared at parameters 1.6e+07, tokens 1e+09 (9.6e+16 FLOPs, 6ND), inside the ranges of all" in text
    assert text.endswith(f"{figures / 'comparison.svg'}\n")
    assert [path.name for path in figures.iterdir()] == ["comparison.svg"]
    assert fitted(*words) == 2, "the figure is there"
    capsys.readouterr()
    assert fitted(*words[:-2], "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["comparison"]["best"] == "llama"
    assert set(found["groups"]) == {"llama", "lstm"}
    assert fitted(*words[:3]) == 0
    assert "warning: points of several kinds of domain (llama, lstm) are mixed" in capsys.readouterr().out


def test_published_points_stand_beside_what_was_published(capsys: pytest.CaptureFixture[str]) -> None:
    assert fitted("--published", "chinchilla") == 0
    text = capsys.readouterr().out
    assert "fitted to 234 points" in text
    assert "objective 0.00084009312" in text
    assert "published: A 482.01, B 2085.4, E 1.8169" in text
    assert "  6.796e+09   3.178e+11  1.296e+22" in text


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "give CSV files or directories of runs, or --published"),
        (["CSV", "--published", "chinchilla"], 2, "give CSV files or directories of runs, or --published"),
        (["--published", "chinchilla", "--convention", "kaplan"], 2, "leave --convention, --metric away"),
        (["--published", "chinchila"], 2, "'chinchila' is not one of"),
        (["CSV"], 2, "says not how parameters are counted"),
        (["CSV", "--convention", "kaplan", "--law", "chinchila"], 2, "chinchila"),
        (["CSV", "--convention", "kaplan", "--force"], 2, "--force is for --out or --figures"),
        (["CSV", "--convention", "kaplan", "--out", "law.txt"], 2, "must be a name that ends in .json"),
        (["CSV", "--convention", "kaplan", "--figures", "CSV"], 2, "is no directory"),
        (["no.csv", "--convention", "kaplan"], 1, "no.csv: is not there"),
        (["EMPTY"], 2, "there is no run in"),
        (["CSV", "--convention", "kaplan", "--by", "family"], 2, "every point has the family 'not said'"),
        (["CSV", "--by", "family", "--out", "law.json"], 2, "--out holds one law, and --by fits several"),
    ],
)
def test_mistakes_are_told_in_one_line(
    words: list[str], code: int, message: str, csv: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"CSV": csv, "EMPTY": str(tmp_path / "empty")}
    assert run(["fit", *(places.get(word, word) for word in words)]) == code
    told = capsys.readouterr()
    assert message in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""


def test_nothing_is_overwritten_unasked_and_no_other_file_at_all(
    csv: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, figures = tmp_path / "law.json", tmp_path / "figures"
    words = [csv, "--convention", "kaplan", "--out", str(out), "--figures", str(figures)]
    assert fitted(*words) == 0
    before = out.read_bytes()
    assert fitted(*words) == 2
    assert "already exists" in capsys.readouterr().err
    assert fitted(*words, "--force", "--law", "over_training") == 0
    assert out.read_bytes() != before
    out.write_text('{"mine": 1}')
    assert fitted(*words, "--force") == 2
    assert "is no law of lmwright, so it is not replaced" in capsys.readouterr().err
    assert out.read_text() == '{"mine": 1}'
    out.unlink()
    assert fitted(*words) == 2, "the figures are there"
    assert not out.exists(), "refused before anything is written"


def test_names_that_a_terminal_would_obey_are_printed_as_signs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "points.csv"
    rows = [f"{n},{d},{3 + 1e5 / n + 1e6 / d},\x1b[2J" for n in (1e6, 2e6, 4e6) for d in (1e7, 3e7, 9e7)]
    path.write_text("\n".join(["N,D,loss,metric", *rows]) + "\n")
    figures = tmp_path / "figures"
    assert fitted(str(path), "--convention", "kaplan", "--figures", str(figures)) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "⟨U+001B⟩[2J" in text
    assert all("\x1b" not in figure.read_text() for figure in figures.iterdir())


def test_the_verb_imports_no_torch(csv: str, tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "one")
    program = (
        "import sys\n"
        "from lmwright.cli.main import run\n"
        f"assert run(['fit', {csv!r}, {str(tmp_path / 'runs')!r}, '--convention', 'chinchilla', '--draws', '20',"
        f" '--figures', {str(tmp_path / 'figures')!r}]) == 0\n"
        "heavy = {'torch', 'transformers', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_the_help_names_every_column_that_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    said = text[text.index("has the columns") : text.index("Options:")]
    listed = said.replace(",", " ").replace(".", " ").split()
    for name in (*NUMBERS, "run", *MARKS, *LABELS, "convention", "metric"):
        assert name in listed
