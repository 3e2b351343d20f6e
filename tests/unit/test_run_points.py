"""Run directories as points: what is counted, where the loss is from, which runs are one, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from scaling_runs import MODEL, write_run

from lmwright.errors import ConfigError, DataError
from lmwright.report.run_points import curves, curves_of, measured

D, F, V, L = MODEL.hidden_size, MODEL.ffn_size, MODEL.vocab_size, MODEL.num_layers
INNER = L * (4 * D * D + 3 * D * F + 2 * D) + D
MATRICES = L * (4 * D * D + 3 * D * F) + V * D


def test_a_run_is_counted_from_its_own_files(tmp_path: Path) -> None:
    write_run(tmp_path / "one", loss=4.25)
    found = measured([tmp_path], convention="kaplan")
    assert found.parameters.tolist() == [INNER]
    assert found.tokens.tolist() == [1280]
    assert found.loss.tolist() == [4.25], "of the last validation, not the first"
    assert found.unique_tokens.tolist() == [pytest.approx(500)], "the corpus has less than was trained on"
    assert found.flops.tolist() == [pytest.approx(1280 * 3 * (2 * MATRICES + 4 * L * 16 * D))]
    assert found.finished.tolist() == [True]
    assert (found.convention, found.metric) == ("kaplan", "nats/token")
    tables = V * D * (1 if MODEL.tie_embeddings else 2)
    assert measured([tmp_path / "one"], convention="chinchilla").parameters.tolist() == [INNER + tables]
    assert measured([tmp_path], convention="kaplan", metric="bits/byte").loss.tolist() == [4.25 / 3]


def test_tokens_that_were_not_reached_are_not_unique_ones_trained_on(tmp_path: Path) -> None:
    write_run(tmp_path / "one", corpus_tokens=1e6)
    assert measured([tmp_path], convention="kaplan").unique_tokens.tolist() == [1280]


def test_facts_of_the_corpus_go_before_the_plan(tmp_path: Path) -> None:
    run = write_run(tmp_path / "one")
    (run / "corpus.json").write_text(json.dumps({"train": {"tokens": 640}}))
    assert measured([run], convention="kaplan").unique_tokens.tolist() == [640]
    (run / "corpus.json").unlink()
    (run / "plan.json").unlink()
    with pytest.raises(DataError, match="says not how much text its corpus has"):
        measured([run], convention="kaplan")


def test_a_run_that_broke_off_is_not_finished_and_stands_where_it_was_validated(tmp_path: Path) -> None:
    write_run(tmp_path / "one", stopped_at=7)
    found = measured([tmp_path], convention="kaplan")
    assert found.finished.tolist() == [False]
    assert found.tokens.tolist() == [5 * 128]


def test_a_run_whose_end_was_not_validated_is_not_finished(tmp_path: Path) -> None:
    run = write_run(tmp_path / "one")
    kept = [
        line for line in (run / "metrics.jsonl").read_text().splitlines() if '"evaluation", "step": 10' not in line
    ]
    (run / "metrics.jsonl").write_text("\n".join(kept) + "\n")
    found = measured([run], convention="kaplan")
    assert found.tokens.tolist() == [640]
    assert found.finished.tolist() == [False]


def test_forks_of_a_trunk_are_one_run(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", steps=20)
    write_run(tmp_path / "c", first_seconds=0.75)
    found = measured([tmp_path], convention="kaplan")
    assert found.run == (str(tmp_path / "a"), str(tmp_path / "a"), str(tmp_path / "c"))


def test_of_a_ladder_only_the_grid_counts_unless_a_run_is_named(tmp_path: Path) -> None:
    for name in ("runs/a", "trunks/a", "sweep/b"):
        write_run(tmp_path / "ladder" / name)
    assert len(measured([tmp_path], convention="kaplan")) == 3, "any folder of runs"
    (tmp_path / "ladder" / "ladder.json").write_text("{}")
    grid, trunk = (str(tmp_path / "ladder" / name) for name in ("runs/a", "trunks/a"))
    assert measured([tmp_path], convention="kaplan").run == (grid,)
    assert measured([tmp_path / "ladder"], convention="kaplan").run == (grid,)
    assert measured([Path(trunk)], convention="kaplan").run == (trunk,)


def test_a_ladder_is_known_from_inside_from_above_and_by_a_relative_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        for part in ("runs/a", "runs/b", "trunks/a", "sweep/small/0.01"):
            write_run(tmp_path / name / part)
        (tmp_path / name / "ladder.json").write_text("{}")
    write_run(tmp_path / "alone")
    assert len(measured([tmp_path], convention="kaplan")) == 5
    assert len(measured([tmp_path / "one" / "runs"], convention="kaplan")) == 2
    monkeypatch.chdir(tmp_path / "one")
    assert measured([Path(".")], convention="kaplan").run[0] == "runs/a"
    assert len(measured([Path("..")], convention="kaplan")) == 5
    assert len(measured([Path("../two"), Path(".")], convention="kaplan")) == 4
    monkeypatch.chdir("trunks")
    with pytest.raises(ConfigError, match=r"there is no run in \. with a loss but 1 trunks, sweeps and"):
        measured([Path(".")], convention="kaplan")


def test_a_ladder_under_way_gives_the_points_that_it_has(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run = write_run(tmp_path / "ladder" / "runs" / name)
    alone = write_run(tmp_path / "alone")
    for path in (run, alone):
        records = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        kept = [record for record in records if record["kind"] == "step"]
        (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in kept))
    with pytest.raises(DataError, match="has no validation loss"):
        measured([run], convention="kaplan")
    (tmp_path / "ladder" / "ladder.json").write_text("{}")
    told: list[str] = []
    assert measured([tmp_path / "ladder"], convention="kaplan", tell=told.append).run == (str(run.parent / "a"),)
    assert told == [f"1 runs have no loss yet and are left out, the first: {run}"]
    with pytest.raises(ConfigError, match="1 trunks, sweeps and unfinished runs of a ladder"):
        measured([run], convention="kaplan")
    with pytest.raises(DataError, match="has no validation loss"):
        measured([alone], convention="kaplan")


@pytest.mark.parametrize(
    ("schedule", "finished"),
    [
        ({"name": "constant", "warmup_steps": 1}, False),
        ({"name": "cosine", "floor": 1.0}, False),
        ({"name": "wsd", "floor": 0.0, "decay_steps": 0}, False),
        ({"name": "wsd", "floor": 0.0, "decay_steps": 2}, True),
        ({"name": "cosine", "floor": 0.1}, True),
        (None, True),
    ],
)
def test_a_rate_that_never_came_down_is_no_point_of_the_law(
    tmp_path: Path, schedule: dict[str, object] | None, finished: bool
) -> None:
    run = write_run(tmp_path / "one")
    config = json.loads((run / "config.json").read_text())
    if schedule is not None:
        config["training"]["schedule"] = schedule
    (run / "config.json").write_text(json.dumps(config))
    assert measured([run], convention="kaplan").finished.tolist() == [finished]


def test_runs_say_their_family_and_their_text(tmp_path: Path) -> None:
    lstm = {
        "family": "lstm",
        "layout": "plain",
        "mixer": "lstm",
        "position": "none",
        "num_heads": 1,
        "ffn_size": 0,
    }
    for name in ("a", "b", "c"):
        model = replace(MODEL, **lstm) if name == "b" else MODEL
        run = write_run(tmp_path / name, first_seconds=ord(name), model=model)
        config = json.loads((run / "config.json").read_text())
        config["data"]["corpus"] = f"/texts/{name}/corpus"
        (run / "config.json").write_text(json.dumps(config))
    (tmp_path / "c" / "corpus.json").write_text(json.dumps({"source": "stdlib", "train": {"tokens": 500}}))
    found = measured([tmp_path], convention="kaplan")
    assert found.family == ("llama", "lstm", "llama")
    assert found.domain == ("a/corpus", "b/corpus", "stdlib")
    length = json.loads((tmp_path / "a" / "config.json").read_text())["data"]["context_length"]
    assert found.context.tolist() == [length] * 3
    assert measured([tmp_path / "b"], convention="kaplan").domain == ("corpus",)


def test_curves_are_every_validation_of_each_run(tmp_path: Path) -> None:
    write_run(tmp_path / "a", loss=4.0)
    write_run(tmp_path / "b", loss=3.0, steps=15)
    found = curves([tmp_path], convention="kaplan")
    assert found.loss.tolist() == [9.0, 4.0, 13.0, 8.0, 3.0]
    assert found.tokens.tolist() == [640, 1280, 640, 1280, 1920]
    assert found.run == (str(tmp_path / "a"),) * 2 + (str(tmp_path / "b"),) * 3
    assert not found.finished.any()


@pytest.mark.parametrize("loss", [1e300, 1e-300])
def test_what_cannot_be_a_loss_is_refused_with_its_step(tmp_path: Path, loss: float) -> None:
    write_run(tmp_path / "one", loss=4.0)
    run = write_run(tmp_path / "two", loss=loss)
    if loss < 1:
        text = (run / "metrics.jsonl").read_text().replace('"loss": 5.0, "bits', '"loss": 1e-300, "bits')
        (run / "metrics.jsonl").write_text(text)
    with pytest.raises(DataError, match=r"two/metrics.jsonl: the validation loss of step \d+ is 1e"):
        measured([tmp_path], convention="kaplan")


def test_a_run_without_validation_is_refused_with_the_remedy(tmp_path: Path) -> None:
    write_run(tmp_path / "one", steps=4)
    with pytest.raises(DataError, match=r"one: has no validation loss.*training.eval_every above 0"):
        measured([tmp_path], convention="kaplan")


def test_what_is_no_run_or_no_metric_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no run in"):
        measured([tmp_path], convention="kaplan")
    with pytest.raises(ConfigError, match="did you mean"):
        measured([tmp_path], convention="kaplan", metric="bits/bytes")
    run = write_run(tmp_path / "one")
    config = json.loads((run / "config.json").read_text())
    config["architecture"]["hidden_sise"] = 3
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="hidden_sise"):
        measured([run], convention="kaplan")


def test_losses_by_the_token_of_other_tokenizers_are_not_compared(tmp_path: Path) -> None:
    for name, digest in (("a", "1" * 64), ("b", "2" * 64)):
        run = write_run(tmp_path / name, model=replace(MODEL, num_layers=1 + (name == "b")))
        place = run / "checkpoints" / "step-000010"
        place.mkdir(parents=True)
        (place / "tokenizer.json").write_text("{}")
        manifest = {"files": {"tokenizer.json": {"bytes": 2, "sha256": digest}}}
        (place / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match=r"different tokenizers.*--metric bits/byte"):
        measured([tmp_path], convention="kaplan")
    assert len(measured([tmp_path], convention="kaplan", metric="bits/byte")) == 2


def test_curves_are_read_only_where_the_points_are_none(tmp_path: Path) -> None:
    """Two forks of a trunk are a curve of their own; a run by itself has one along it."""
    for name in ("a", "b"):
        write_run(tmp_path / "trunk" / name, first_seconds=1.0)
    trunk = measured([tmp_path / "trunk"], convention="kaplan")
    assert len(set(trunk.run)) == 1
    assert curves_of([tmp_path / "trunk"], trunk) is None
    write_run(tmp_path / "trunk" / "alone", first_seconds=2.0)
    both = measured([tmp_path / "trunk"], convention="kaplan")
    along = curves_of([tmp_path / "trunk"], both)
    assert along is not None
    assert along.loss.tolist() == curves([tmp_path / "trunk"], convention="kaplan").loss.tolist()
