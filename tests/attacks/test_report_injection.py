"""Text that a model or a file made up tries to act inside the report; it may only be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_runs import Page, make_run, write

from lmwright.report.contents import read_run
from lmwright.report.page import render, render_comparison, write_both

ATTACKS = [
    "</script><script>alert(1)</script>",
    "</pre></div><img src=x onerror=alert(1)>",
    "<svg onload=alert(1)><a href='javascript:alert(1)'>x</a></svg>",
    '" onmouseover="alert(1)" x="',
    "' autofocus onfocus='alert(1)",
    "</style><style>body{background:red}</style>",
    "<!-- <![CDATA[ ]]> --!> <textarea></title>",
    "{{7*7}} {% for x in ().__class__.__base__.__subclasses__() %}{{x}}{% endfor %} {# gone #}",
    "&lt;b&gt; &#60;script&#62; &amp;",
    "<meta http-equiv=refresh content='0;url=http://example.org'>",
    "$\\frac{1}{0}$ \\input{x} %s %(a)s {0} {a.__class__}",
]
SIGNS = "\x00 \x07 \x1b[2J\x1b[31m \x7f \x85 \x9b \u2028 \u202e \u2066 \u200b \ufeff \ud800 \udfff"


def shapes(page: Page) -> list[tuple[str, tuple[str, ...]]]:
    return [(tag, tuple(attributes)) for tag, attributes in page.elements]


def samples(path: Path, pairs: list[tuple[str, str]]) -> None:
    entries = [{"prompt": prompt, "continuation": continuation} for prompt, continuation in pairs]
    write(path, "samples.json", {"settings": {}, "samples": entries})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", leave_out=("metrics.jsonl",))


def test_samples_add_no_element_and_are_shown_as_they_are(run):
    samples(run, [("a", "b") for _ in ATTACKS])
    innocent = shapes(Page(render(read_run(run))))
    samples(run, [(attack, attack) for attack in ATTACKS])
    page = Page(render(read_run(run)))
    assert shapes(page) == innocent
    for attack in ATTACKS:
        assert page.text.count(attack) == 2, attack
    assert "49" not in page.text.split("Samples")[1].split("Export")[0]


def test_names_values_and_reasons_are_as_inert_as_samples(tmp_path):
    def build(number: int, texts: list[str]) -> Page:
        run = make_run(tmp_path / f"run{number}", leave_out=("metrics.jsonl",))
        tree = {text: {text: [text, {text: 1}]} for text in texts}
        write(run, "config.json", {"architecture": {"family": "".join(texts)}, **tree, "flat": texts})
        write(run, "env.json", tree)
        write(run, "verification.json", {"verified": texts[0], **tree})
        facts = json.loads((run / "corpus.json").read_text())
        write(run, "corpus.json", {**facts, "rejects": dict.fromkeys(texts, 3)})
        write(run, "samples.json", {"settings": tree, "samples": [{"prompt": "", "continuation": ""}]})
        records = [{"kind": "nonfinite", "step": text, "what": text, "documents": [text]} for text in texts]
        records += [
            {"kind": "finding", "step": text, "name": text, "message": text, text: [text]} for text in texts
        ]
        (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        return Page(render(read_run(run)))

    page = build(0, ATTACKS)
    assert shapes(page) == shapes(build(1, [f"innocent{number}" for number in range(len(ATTACKS))]))
    for attack in ATTACKS:
        assert page.text.count(attack) >= 10, attack


@pytest.mark.parametrize("name", ["<b>x<{{7*7}}$\\alpha$ & \"q'", "\x1b[31m\u202e", "a" * 200])
def test_the_name_of_a_run_is_inert_on_the_page_and_in_figures(tmp_path, name):
    runs = [make_run(tmp_path / one) for one in (name, "innocent", "other")]
    contents = [read_run(run) for run in runs]
    page, compared = (render_comparison(both) for both in (contents[:2], contents[1:]))
    assert shapes(Page(page)) == shapes(Page(compared))
    assert "\x1b" not in page
    assert "\u202e" not in page


def test_settings_machines_and_tokens_of_compared_runs_are_inert(tmp_path):
    def build(number: int, texts: list[str]) -> Page:
        runs = []
        for side in (0, 1):
            path = make_run(tmp_path / f"both{number}" / f"run{side}", leave_out=("metrics.jsonl",))
            tree = {text: {text: [text, side]} for text in texts}
            sizes = {"architecture": {"vocab_size": "".join(texts) + str(side)}, "training": {"seed": texts[0]}}
            write(path, "config.json", {**sizes, **tree})
            write(path, "env.json", {"processor": f"{texts[1]}{side}", **tree})
            runs.append(read_run(path))
        return Page(render_comparison(runs))

    page = build(0, ATTACKS)
    assert shapes(page) == shapes(build(1, [f"innocent{number}" for number in range(len(ATTACKS))]))
    for attack in ATTACKS:
        assert page.text.count(attack) >= 4, attack


def test_control_direction_and_surrogate_characters_are_printed_as_signs(run):
    samples(run, [(SIGNS, f"kept\n\ttoo {SIGNS}")])
    write_both(run)
    text = (run / "report.html").read_text(encoding="utf-8")
    for sign in SIGNS.replace(" ", "").replace("[2J", "").replace("[31m", ""):
        assert sign not in text, hex(ord(sign))
        assert text.count(f"⟨U+{ord(sign):04X}⟩") >= 2
    assert "kept\n\ttoo" in Page(text).text


def test_a_huge_sample_and_many_samples_are_cut_and_say_so(run):
    many = [{"prompt": "p" * 50_000, "continuation": "<" * 3_000_000}] + [
        {"prompt": "", "continuation": "x"}
    ] * 5000
    write(run, "samples.json", many)
    text = render(read_run(run))
    assert len(text) < 1_500_000
    assert "2,996,000 more characters" in text
    assert "48,000 more characters" in text
    assert "4,977 more samples" in Page(text).text


def test_a_huge_or_deep_configuration_is_cut(run):
    deep: object = 1
    for _ in range(300):
        deep = {"k": deep}
    wide = {f"key{number}": "v" * 10_000 for number in range(3000)}
    write(run, "config.json", {"deep": deep, "wide": wide, "list": [[[1]]] * 10_000})
    assert len(render(read_run(run))) < 1_500_000
