"""Every number that a report prints is computed again here, from the raw files of the run, by other code."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from report_runs import Page, add_to_metrics, make_run, plan_from_budget, write

from lmwright.errors import DataError
from lmwright.report.contents import read_run
from lmwright.report.numbers import numbers, summarise
from lmwright.report.page import render
from lmwright.report.rules import PLANNED, RULE_NAMES

UNITS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}


def expected(path: Path) -> dict[str, float]:
    """Each number from the raw files, written out by hand."""
    load = {name: json.loads((path / f"{name}.json").read_text()) for name in ("plan", "corpus", "evaluation")}
    plan, corpus, evaluation = load["plan"], load["corpus"], load["evaluation"]
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step"]
    nats, tokens, size = evaluation["nats"], evaluation["tokens"], evaluation["bytes"]
    d, t = steps[-1]["tokens"], steps[-1]["seconds"]
    n, inner = plan["parameters"]["total"], plan["parameters"]["non_embedding"]
    xz = corpus["xz_bits_per_byte"]
    return {
        "validation_loss": nats / tokens,
        "perplexity": math.e ** (nats / tokens),
        "bits_per_byte": nats * math.log2(math.e) / size,
        "xz_bits_per_byte": xz,
        "unigram_bits_per_byte": corpus["byte_unigram_bits_per_byte"],
        "xz_loss": xz * size * math.log(2) / tokens,
        "against_xz": (nats * math.log2(math.e) / size - xz) / xz,
        "training_loss": steps[-1]["loss"],
        "best_validation_loss": min(line["loss"] for line in lines if line["kind"] == "evaluation"),
        "parameters": n,
        "steps": 120,
        "trained_tokens": 120 * 4096,
        "tokens_per_parameter": d / n,
        "epochs": 0.873214,
        "training_flops": plan["flops"]["per_token"] * d,
        "six_nd": 6 * d * n,
        "six_nd_inner": 6 * d * inner,
        "seconds": t,
        "tokens_per_second": d / t,
        "mfu": plan["flops"]["per_token"] * (d / t) / plan["peak_flops"],
        "peak_memory": 7e8,
        "planned_tokens": plan["tokens"],
        "planned_epochs": plan["epochs"],
        "planned_flops": plan["flops"]["total"],
        "planned_six_nd": plan["flops"]["six_nd_all_parameters"],
        "planned_six_nd_inner": plan["flops"]["six_nd_without_embeddings"],
        "planned_seconds": 61.5,
        "planned_tokens_per_second": plan["tokens"] / 61.5,
        "planned_memory": plan["memory_bytes"]["total"],
    }


def spoken(text: str) -> float:
    """Read a printed number back: 87.00 TFLOP, 47.2%, 4 min 01 s, 12,345."""
    if match := re.fullmatch(r"(\d+) min (\d\d) s", text):
        return int(match[1]) * 60 + int(match[2])
    match = re.fullmatch(r"([−+]?)([\d,.]+)(%| s)?(?: ([kMGTP])?(?:FLOP|B))?", text)
    assert match, text
    value = float(match[2].replace(",", "")) * (-1 if match[1] == "−" else 1)
    return value / 100 if match[3] == "%" else value * UNITS.get(match[4] or "", 1)


def test_every_number_is_recomputed_from_the_raw_files(tmp_path):
    run = make_run(tmp_path / "run")
    add_to_metrics(run, "start", compile_seconds=14.25)
    add_to_metrics(run, "evaluation", average_loss=2.25, average_bits_per_byte=1.0625)
    plan_from_budget(run)
    found = numbers(read_run(run))
    wanted = expected(run) | {
        "average_loss": 2.25,
        "average_bits_per_byte": 1.0625,
        "compile_seconds": 14.25,
        "budget_loss": 2.625,
        "budget_loss_low": 2.5,
        "budget_loss_high": 2.75,
        "budget_tokens": 500_000,
        "budget_flops": 3.7e12,
        "budget_seconds": 64.25,
        "budget_memory": 9.5e7,
    }
    assert set(found) == set(RULE_NAMES) == set(wanted)
    for name, value in wanted.items():
        assert found[name].value == pytest.approx(value, rel=1e-12), name


def test_the_page_and_the_summary_print_those_numbers(tmp_path):
    run = make_run(tmp_path / "run")
    wanted = expected(run)
    contents = read_run(run)
    page = Page(render(contents))
    assert {name for name, *_ in page.numbers} == set(wanted)
    for name, value, text in page.numbers:
        assert float(value) == pytest.approx(wanted[name], rel=1e-12)
        close = {"abs": 0.51} if "min" in text else {"rel": 5e-3 if "%" in text else 5.1e-4}
        assert spoken(text) == pytest.approx(wanted[name], **close), name
    summary = json.loads(json.dumps(summarise(contents), allow_nan=False))["numbers"]
    assert {name: entry["value"] for name, entry in summary.items()} == pytest.approx(wanted)
    for name, _, text in page.numbers:
        assert summary[name]["text"] == text


def test_each_number_names_the_value_and_the_place_of_its_inputs(tmp_path):
    run = make_run(tmp_path / "run")
    entry = summarise(read_run(run))["numbers"]["bits_per_byte"]
    assert entry["formula"] == "nats ÷ (ln 2 × bytes)"
    assert entry["inputs"] == {
        "nats": {"source": "evaluation.json:nats", "value": 33_271.125},
        "bytes": {"source": "evaluation.json:bytes", "value": 43_210},
    }


def test_tables_of_the_corpus_and_of_the_memory_are_the_raw_ones(tmp_path):
    run = make_run(tmp_path / "run")
    text = Page(render(read_run(run))).text
    rows = [line.split() for line in text.splitlines()]
    for shown in ("1,234", "562,301", "1,999,777", "3.564", "31", "12,346", "43,210", "3.509", "41", "91.00 MB"):
        assert shown in text, shown
    assert ["train1,234562,3011,999,7773.564"] in rows


def test_difference_from_the_plan(tmp_path):
    run = make_run(tmp_path / "run")
    text = Page(render(read_run(run))).text
    took = 120 * 4096 / 9000
    share = 100 * (took / 61.5 - 1)
    assert f"−{abs(share):.1f}%" in text
    assert "exact" in text
    assert set(PLANNED) | set(PLANNED.values()) <= set(RULE_NAMES)


def test_without_evaluation_the_last_validation_in_the_run_stands_in(tmp_path):
    run = make_run(tmp_path / "run", leave_out=("evaluation.json",))
    found = numbers(read_run(run))
    last = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    wanted = [line["loss"] for line in last if line["kind"] == "evaluation"][-1]
    assert found["validation_loss"].value == wanted
    assert "bits_per_byte" not in found


@pytest.mark.parametrize(
    ("nats", "tokens", "name"),
    [(1.0, 0, "validation_loss"), (float("nan"), 5, "bits_per_byte"), (1e6, 1, "perplexity")],
)
def test_what_is_not_finite_is_said_to_be_so(tmp_path, nats, tokens, name):
    run = make_run(tmp_path / "run")
    write(run, "evaluation.json", {"nats": nats, "tokens": tokens, "bytes": 100})
    contents = read_run(run)
    printed = {key: text for key, _, text in Page(render(contents)).numbers}
    assert printed[name] == "not finite"
    entry = json.loads(json.dumps(summarise(contents), allow_nan=False))["numbers"][name]
    assert entry["value"] is None
    assert entry["text"] == "not finite"


@pytest.mark.parametrize("wrong", ["12", True, [1], {"a": 1}, 10**400])
def test_a_number_that_is_none_is_an_error_that_names_the_file(tmp_path, wrong):
    run = make_run(tmp_path / "run")
    write(run, "evaluation.json", {"nats": 1.0, "tokens": wrong, "bytes": 100})
    with pytest.raises(DataError, match=r"evaluation\.json: tokens is"):
        render(read_run(run))
