"""Scaling laws on a page: the ladder's law beside the runs, plan beside actual of a budget, and hostile labels."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from report_runs import Page, make_run, plan_from_budget
from scaling_runs import write_run

from lmwright.cli.main import run as command
from lmwright.errors import ConfigError
from lmwright.model.config import ModelConfig
from lmwright.report import law_section
from lmwright.report.contents import read_run
from lmwright.report.law_captions import ALT, CAPTIONS
from lmwright.report.law_section import law_of
from lmwright.report.page import render, render_ladders
from lmwright.report.scaling_figures import FIGURES
from lmwright.scaling.fit import fit
from lmwright.scaling.flops import count_parameters


def ladder(path: Path, *, domain: str = "/texts/corpus", worse: float = 1.0) -> Path:
    """Three sizes by three lengths on L = 2 + 40 N^-0.35 + 60 D^-0.3, with a little noise."""
    random = np.random.default_rng(1)
    for hidden in (16, 32, 64):
        model = ModelConfig(
            family="llama", vocab_size=300, hidden_size=hidden, num_layers=2, num_heads=2, ffn_size=2 * hidden,
            max_positions=32,
        )  # fmt: skip
        size = count_parameters(model).total
        for length in (1, 2, 4):
            tokens = 5_000 * length
            loss = worse * (2 + 40 * size**-0.35 + 60 * tokens**-0.3) * np.exp(0.003 * random.standard_normal())
            run = write_run(
                path / "runs" / f"{hidden}-{length}", model=model, loss=float(loss), tokens_per_step=500 * length,
                corpus_tokens=1e6, first_seconds=hidden + length,
            )  # fmt: skip
            config = json.loads((run / "config.json").read_text())
            config["data"]["corpus"] = domain
            (run / "config.json").write_text(json.dumps(config))
    write_run(path / "trunks" / "16")
    (path / "ladder.json").write_text("{}")
    return path


@pytest.fixture(autouse=True, scope="module")
def few_draws() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(law_section, "DRAWS", 30)
        yield


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ladder(tmp_path_factory.mktemp("climbed") / "ladder")


@pytest.fixture(scope="module")
def page(climbed: Path) -> Page:
    return Page(render_ladders([climbed]))


def sections(page: Page) -> list[str]:
    return [str(attributes["id"]) for tag, attributes in page.elements if tag == "section"]


def test_a_ladder_has_a_page_with_its_law_and_its_figures(climbed: Path, page: Page) -> None:
    found = law_of([climbed], law=None)
    assert sections(page) == ["law", "runs"]
    assert "Fitted to 9 points of 9 independent runs" in page.text
    assert found.held is not None
    assert f"{found.held.loss[0]:.4f}" in page.text
    for name, value in found.fitted.natural().items():
        assert f"{value:.5g}" in page.text, name
    drawn = [str(attributes["aria-label"]) for tag, attributes in page.elements if tag == "svg"]
    assert drawn == [ALT[name] for name in ("frontier", "residuals", "loss-against-data") for _ in "wn"]
    assert CAPTIONS["residuals"] in page.text
    assert "1 envelope is not told: of 3 sizes fewer than two are the best between others" in page.text
    assert "64-4" in page.text
    assert "trunks" not in page.text
    assert len(page.ids()) == len(set(page.ids()))
    assert set(CAPTIONS) == set(ALT) == {*FIGURES, "comparison"}


def test_the_page_of_a_ladder_asks_nobody_and_is_the_same_each_time(climbed: Path) -> None:
    text = render_ladders([climbed])
    assert text == render_ladders([climbed])
    assert not re.search(r"https?:|@import|<script", text)
    assert "default-src 'none'" in text


def test_a_run_with_a_ladder_beside_it_shows_the_law_that_its_file_names(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    ladder(run / "ladder")
    found = law_of([run / "ladder"], law=None)
    fitted = fit("over_training", found.points, draws=30)
    (run / "law.json").write_text(fitted.to_json())
    page = Page(render(read_run(run)))
    assert "law" in sections(page)
    assert f"{fitted.natural()['eta']:.5g}" in page.text
    assert "holds another fit" not in page.text
    rounded = tuple(value * (1 + 1e-12) for value in fitted.theta)
    (run / "law.json").write_text(dataclasses.replace(fitted, theta=rounded).to_json())
    assert "holds another fit" not in Page(render(read_run(run))).text
    (run / "law.json").write_text(dataclasses.replace(fitted, theta=(1.0, 2.0, 0.1, 0.1)).to_json())
    section = law_section.run_section(run)
    assert section is not None
    assert "law.json holds another fit than these runs give now" in section.warnings


def test_a_run_has_a_report_though_its_ladder_has_no_law(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    ladder(run / "ladder")
    (run / "law.json").write_text("{")
    assert "The ladder gives no law:" in Page(render(read_run(run))).text
    (run / "law.json").unlink()
    for place in sorted((run / "ladder" / "runs").iterdir())[1:]:
        (place / "config.json").unlink()
    section = law_section.run_section(run)
    assert section is not None
    assert section.paragraphs[0].startswith("The ladder gives no law:")
    assert law_section.run_section(make_run(tmp_path / "without")) is None


def test_ladders_of_several_texts_are_compared_and_their_names_are_inert(tmp_path: Path) -> None:
    hostile = "</text><script>alert(1)</script>\x1b[2J\u202e{{7*7}}"
    first = ladder(tmp_path / "a", domain="plain")
    pages = []
    for place, domain in (("b", hostile), ("c", "innocent")):
        other = ladder(tmp_path / place, domain=domain, worse=1.1)
        pages.append(Page(render_ladders([first, other])))
    bad, good = pages
    assert sections(bad) == ["comparison", "law-0", "law-1", "runs"]
    drawn = [str(attributes["aria-label"]) for tag, attributes in bad.elements if tag == "svg"]
    assert drawn[0] == ALT["comparison"]
    tags = [
        [tag for tag, _ in page.elements if tag not in ("tspan", "text", "g", "use", "path")] for page in pages
    ]
    assert tags[0] == tags[1]
    assert hostile.split("\x1b")[0] in bad.text
    assert "⟨U+001B⟩" in bad.text
    assert not {"\x1b", "\u202e"} & set(bad.text)
    assert "plain has the least loss" in good.text


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ({"loss": 2.625, "low": 2.5, "high": 2.75}, "That lies within the interval."),
        ({"loss": 2.5, "low": 2.4, "high": 2.6}, "That lies outside the interval."),
        ({"loss": 2.5, "low": None, "high": None}, "Without an interval, nothing says"),
    ],
)
def test_a_plan_from_a_budget_stands_beside_what_came_of_it(
    tmp_path: Path, loss: dict[str, float | None], said: str
) -> None:
    run = make_run(tmp_path / "run")
    assert "budget" not in sections(Page(render(read_run(run))))
    plan_from_budget(run, loss=loss)
    found = Page(render(read_run(run)))
    assert "budget" in sections(found)
    assert said in found.text
    part = found.text[found.text.index("Before training, the law foretold") :].split("Planned before anything")[0]
    measured = 33_271.125 / 12_345
    rows = {line.split("\n")[0] for line in part.splitlines()}
    assert any(
        f"{loss['loss']:.3f}{measured:.3f}{100 * (measured / loss['loss'] - 1):+.2f}" in row for row in rows
    )
    assert any("500,000491,520−1.70%" in row for row in rows)
    assert any("1 min 04 s54.6 s−15" in row for row in rows)
    assert any(row.startswith("Memory (planned: tensors alone)") and row.endswith("–") for row in rows)


def test_a_law_in_bits_and_of_other_text_is_compared_in_its_own_metric_and_doubted(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    law = {"metric": "bits/byte", "own": False, "source": "published, on <b>C4</b>"}
    plan_from_budget(run, law=law, loss={"loss": 1.2, "low": 1.0, "high": 1.2})
    found = Page(render(read_run(run)))
    assert "foretold a loss of 1.200 bits/byte" in found.text
    assert f"Measured: {33_271.125 / np.log(2) / 43_210:.3f}. That lies within" in found.text
    assert "published, on <b>C4</b>. It is a law of another corpus and tokenizer" in found.text


def test_memory_of_a_gpu_is_compared_with_what_was_planned(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    plan_from_budget(run)
    config = json.loads((run / "config.json").read_text())
    config.setdefault("training", {})["device"] = "cuda"
    (run / "config.json").write_text(json.dumps(config))
    assert "95.00 MB700.0 MB+637%" in Page(render(read_run(run))).text


def test_the_verb_writes_a_ladders_page_and_refuses_mixtures(
    climbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "law.html"
    assert command(["report", str(climbed), "--out", str(out)]) == 0
    assert out.read_text().count("<figure>") == 3
    assert command(["report", str(climbed), "--out", str(out)]) == 2
    assert "already exists" in capsys.readouterr().err
    run = make_run(tmp_path / "run")
    for words in ([str(climbed), "--json"], [str(climbed), str(run), "--out", str(tmp_path / "x.html")]):
        assert command(["report", *words]) == 2
        assert "a ladder's law is a page of its own" in capsys.readouterr().err
    assert command(["report", str(climbed), str(climbed)]) == 2
    assert "say with --out FILE" in capsys.readouterr().err
    assert not (climbed / "report.html").exists()


def test_a_ladder_without_enough_points_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "ladder"
    write_run(empty / "runs" / "one")
    (empty / "ladder.json").write_text("{}")
    with pytest.raises(ConfigError, match="all points are of one run"):
        render_ladders([empty])


def test_a_page_with_a_law_imports_no_torch(climbed: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from lmwright.report.page import render_ladders\n"
        f"assert render_ladders([Path({str(climbed)!r})])\n"
        "heavy = {'torch', 'transformers', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
