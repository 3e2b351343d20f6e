"""From a budget to a plan, and to the run: what follows from what, what is refused, what is said of a law."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_helpers import corpus_of, three_words

from lmwright.cli.main import run
from lmwright.data.build import Corpus
from lmwright.errors import ConfigError
from lmwright.recipes import budget, budget_words, dial, ladder_plan
from lmwright.recipes.budget_basis import Speed, law_of, predict
from lmwright.recipes.ladder_plan import Ladder
from lmwright.recipes.pretrain_config import resolve
from lmwright.scaling import laws, priors
from lmwright.scaling.fit import Fitted, fit
from lmwright.scaling.flops import count_parameters, flops_per_token
from lmwright.scaling.planning import allocate, hyper, shape
from lmwright.scaling.points import Points, logs_of
from lmwright.scaling.priors import Scale
from lmwright.text.tokenizer import train_bpe

SPEED = Speed(peak=1e11, device="cpu", precision="fp32", source="by the test")
TRUE = {"A": 60.0, "B": 300.0, "E": 1.2, "alpha": 0.35, "beta": 0.37}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return three_words(tmp_path_factory.mktemp("budget"), 200)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Half a million tokens, so that there is something to choose."""
    random = np.random.default_rng(5)
    texts = ["".join(random.choice(list("abcdefghij klmnop"), size=14_000)) for _ in range(40)]
    place = tmp_path_factory.mktemp("large")
    return Corpus.open(corpus_of(place, texts, train_bpe(["one two three"], 258)))


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    """A law of small models, with a little noise."""
    random = np.random.default_rng(1)
    size, tokens = (column.ravel() for column in np.meshgrid(np.geomspace(3e4, 1e6, 5), np.geomspace(2e5, 2e7, 5)))
    loss = TRUE["E"] + TRUE["A"] / size ** TRUE["alpha"] + TRUE["B"] / tokens ** TRUE["beta"]
    noisy = loss * np.exp(0.003 * random.standard_normal(len(loss)))
    return fit("chinchilla", Points.of(size, tokens, noisy, convention="chinchilla"), draws=60)


@pytest.fixture(scope="module")
def law(fitted: Fitted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("law") / "law.json"
    place.write_text(fitted.to_json())
    return place


def written(fitted: Fitted, place: Path) -> Path:
    (place / "other.json").write_text(fitted.to_json())
    return place / "other.json"


def test_the_plan_spends_the_budget_and_no_more(large: Corpus, law: Path) -> None:
    made = budget.plan("1e12", large, law=law, speed=SPEED)
    spent = made.tokens * flops_per_token(made.architecture, made.length)
    an_update = made.settings.batch_size * made.length * flops_per_token(made.architecture, made.length)
    assert 1e12 - an_update <= spent <= 1e12
    assert made.seconds == pytest.approx(spent / (0.4 * 1e11))
    assert 0.5 <= count_parameters(made.architecture).total / made.best.parameters <= 2
    assert made.epochs == made.tokens / large.facts.train.tokens
    assert made.predicted.low < made.predicted.loss < made.predicted.high
    assert made.settings.batch_size <= made.unique_tokens // made.length


def test_a_time_is_worth_what_the_machine_does_in_it(large: Corpus, law: Path) -> None:
    made = budget.plan("20s", large, law=law, speed=SPEED)
    assert made.flops == pytest.approx(20 * 0.4 * 1e11)
    twice = budget.plan("20s", large, law=law, speed=dataclasses.replace(SPEED, peak=2e11))
    assert twice.flops == pytest.approx(2 * made.flops)
    read = budget.plan("20s", large, law=law, speed=SPEED, inference_tokens=1e6)
    assert read.best.parameters < made.best.parameters
    assert read.tokens * flops_per_token(read.architecture, read.length) < 0.99 * made.flops


def test_devices_have_a_time_and_memory_of_their_own(corpus: Path, law: Path) -> None:
    made = budget.plan("2xL4 0.01s", Corpus.open(corpus), law=law)
    assert (made.speed, made.memory.run.devices, made.memory.run.device) == (None, 2, "cuda")
    assert made.flops == pytest.approx(2 * 121e12 * 0.4 * 0.01)
    assert made.seconds == pytest.approx(0.01, rel=0.02)


def test_where_nothing_repeats_the_interval_is_that_of_the_fit(large: Corpus, law: Path, fitted: Fitted) -> None:
    used, model = law_of(law), budget.plan("1e11", large, law=law, speed=SPEED).architecture
    found = predict(used, model, 64_000_000, 64, unique=64_000_000)
    parameters = [count_parameters(model).total]
    there = fitted.predict({"parameters": parameters, "tokens": [64_000_000]}, "chinchilla")
    assert (found.loss, found.low, found.high) == pytest.approx((there.loss[0], there.low[0], there.high[0]))
    repeated = predict(used, model, 640_000_000, 64, unique=64_000_000)
    assert there.loss[0] > repeated.loss > predict(used, model, 640_000_000, 64, unique=640_000_000).loss
    assert 64_000_000 < repeated.worth < 640_000_000
    assert repeated.low < repeated.loss < repeated.high


def test_what_is_foretold_of_repeats_is_what_the_plan_was_chosen_by(large: Corpus, law: Path) -> None:
    """The same law of repeats at every place: also what it is sure of, in which more epochs are hardly news."""
    used, unique = law_of(law), large.split("train").num_tokens
    plans = [budget.plan(flops, large, law=law, speed=SPEED) for flops in ("1e13", "1e14")]
    for made in plans:
        assert made.epochs > 4
        spent = allocate.spend(
            used.name, used.theta_P, made.tokens * flops_per_token(made.architecture, made.length) * (1 + 1e-9),
            made.architecture, length=made.length, convention=used.convention, unique_tokens=unique,
        )  # fmt: skip
        assert spent.law == "data_constrained"
        assert made.predicted.loss == pytest.approx(spent.loss, rel=1e-6)
        assert made.predicted.low < spent.loss < made.predicted.high
        told = used.seen(made.best.tokens, unique)
        columns = {"parameters": [made.best.parameters], "tokens": [made.best.tokens], "unique_tokens": [unique]}
        log_B = laws.load(told.name).log_loss(np.array(told.fitted.draws), logs_of(columns))[0][:, 0]
        low, high = np.quantile(log_B, [0.025, 0.975])
        assert made.spread == pytest.approx(np.std(log_B[(log_B >= low) & (log_B <= high)], ddof=1))
    assert plans[1].predicted.loss < plans[0].predicted.loss


def test_a_published_law_gives_no_interval_and_says_so(corpus: Path) -> None:
    made = budget.plan("1e12", Corpus.open(corpus), speed=SPEED)
    assert (made.predicted.low, made.predicted.high, made.next_runs) == (None, None, ())
    assert any("another corpus" in warning for warning in made.warnings)
    assert any("more than guessing" in warning for warning in made.warnings)
    first, *lines = budget_words.lines(made)
    assert first.startswith("no law")
    assert f"lmwright ladder --corpus {corpus} --sizes " in lines[1]
    assert next(line for line in lines if line.startswith("loss ")).startswith("loss          not known")
    large = dataclasses.replace(made, predicted=dataclasses.replace(made.predicted, loss=2.5))
    assert "2.5 nats/token by the law, without an interval" in "\n".join(budget_words.lines(large))


def test_the_way_to_a_law_that_a_stranger_is_told_is_one_that_lmwright_reads(corpus: Path, law: Path) -> None:
    made = budget.plan("1e12", Corpus.open(corpus), speed=SPEED)
    told = [line.split() for line in budget_words.lines(made)[:4] if line.split()[0] == "lmwright"]
    assert [words[1] for words in told] == ["ladder", "fit"]
    sizes = [1e6 * float(size.removesuffix("m")) for size in told[0][told[0].index("--sizes") + 1].split(",")]
    shapes = {
        shape.shape(size, vocab_size=268, length=made.length, convention="chinchilla", tie_embeddings=True).config
        for size in sizes
    }
    assert len(shapes) == 3, "a ladder of them has three sizes"
    assert sizes == sorted(sizes)
    assert budget_words.lines(budget.plan("1e12", Corpus.open(corpus), law=law, speed=SPEED))[0].startswith(
        "budget"
    )


def test_a_text_that_is_short_bounds_context_and_batch(corpus: Path, law: Path) -> None:
    made = budget.plan("1e15", Corpus.open(corpus), law=law, speed=SPEED)
    assert made.unique_tokens // made.length >= 64
    sequences = made.unique_tokens // 512
    few = budget.plan("1e15", Corpus.open(corpus), law=law, speed=SPEED, context=512)
    assert few.settings.batch_size == sequences
    assert few.settings.batch_size % few.micro_batch_size == 0
    assert few.settings.warmup_steps <= 0.1 * few.settings.steps
    assert any("may rise" in warning for warning in few.warnings)


def test_the_smallest_model_is_taken_where_the_law_wants_a_smaller_one(corpus: Path, law: Path) -> None:
    made = budget.plan("2e9", Corpus.open(corpus), law=law, speed=SPEED)
    assert made.architecture.hidden_size == 32
    assert made.architecture.num_layers == 2
    assert any("fewer than the smallest" in warning for warning in made.warnings)
    with pytest.raises(ConfigError, match="less than a sequence"):
        budget.plan("2e6", Corpus.open(corpus), law=law, speed=SPEED)


def test_what_is_planned_is_what_a_run_resolves_to(corpus: Path, law: Path) -> None:
    opened = Corpus.open(corpus)
    made = budget.plan("1e12", opened, law=law, speed=SPEED)
    config = resolve(budget.run_settings(made, opened), "test")
    training = config.training
    assert dataclasses.replace(config.architecture, bos_id=None, eos_id=None) == dataclasses.replace(
        made.architecture, bos_id=None, eos_id=None
    )
    assert training.steps * training.batch_size * config.data.context_length == made.tokens
    assert training.optimizer["lr"] == made.settings.learning_rate
    assert training.optimizer["weight_decay"] == made.settings.weight_decay
    assert training.schedule["warmup_steps"] == made.settings.warmup_steps


def test_the_schedule_is_that_of_a_ladders_runs(large: Corpus, law: Path) -> None:
    asked = Ladder(corpus=str(large.directory), sizes=(1e5,), tokens_per_parameter=2.0, context_length=32)
    [trunk] = ladder_plan.trunks(asked, large)
    steps, made = trunk.steps(1), budget.plan("1e12", large, law=law, speed=SPEED)
    chosen = dataclasses.replace(made.settings, steps=steps, warmup_steps=trunk.warmup)
    planned = resolve(budget.run_settings(dataclasses.replace(made, settings=chosen), large), "test").training
    climbed = trunk.run_file(asked.corpus, steps=steps, schedule=trunk.decaying(1), rate=chosen.learning_rate)
    there = resolve(climbed, "test").training
    assert trunk.warmup > 0
    assert [planned.lr(step) for step in range(steps)] == [there.lr(step) for step in range(steps)]


def test_what_a_laws_fit_says_against_it_is_said(large: Corpus, fitted: Fitted, tmp_path: Path) -> None:
    quiet = dataclasses.replace(fitted, warnings=())
    sure = budget.plan("1e11", large, law=written(quiet, tmp_path), speed=SPEED)
    assert not any("the law's" in warning for warning in sure.warnings)
    loose = dataclasses.replace(
        fitted,
        warnings=("alpha is at its upper bound 2",),
        profile=(*fitted.profile[:3], dataclasses.replace(fitted.profile[3], open_high=True), fitted.profile[4]),
    )
    shown = budget_words.lines(budget.plan("1e11", large, law=written(loose, tmp_path), speed=SPEED))
    assert "warning       the law's fit says: alpha is at its upper bound 2" in shown
    assert "warning       the law's points do not identify its alpha" in shown
    assert not any("N* is known" in line for line in shown)
    wild = [(a + 9 * (-1) ** n, *rest) for n, (a, *rest) in enumerate(fitted.draws)]
    open_ = dataclasses.replace(fitted, draws=tuple(wild))
    warnings = budget.plan("1e11", large, law=written(open_, tmp_path), speed=SPEED).warnings
    assert any("N* is known to a factor of 10^" in warning and "is a guess" in warning for warning in warnings)


def test_another_family_text_or_context_than_the_laws_is_said(
    large: Corpus, fitted: Fitted, tmp_path: Path
) -> None:
    name = Path(large.facts.source).name
    known = dataclasses.replace(fitted, families=("gpt2", "llama"), domains=(name,), contexts=(64,))
    law = written(known, tmp_path)
    alike = budget.plan("1e11", large, law=law, speed=SPEED, context=64)
    assert not any("its interval does not hold" in warning for warning in alike.warnings)
    other = budget.plan("1e11", large, law=law, speed=SPEED, context=32, family="lstm")
    said = [warning for warning in other.warnings if "its interval does not hold" in warning]
    assert len(said) == 2
    assert said[0].startswith("the law is of models of the family gpt2, llama, the plan of lstm")
    assert said[1].startswith("the law is of a context of 64, the plan of 32")
    built = written(dataclasses.replace(known, domains=(large.directory.name,)), tmp_path)
    beside = budget.plan("1e11", large, law=built, speed=SPEED, context=64)
    assert not any("its interval does not hold" in warning for warning in beside.warnings), "the corpus, built"
    elsewhere = written(dataclasses.replace(known, domains=("a/" + name, "wiki")), tmp_path)
    [text] = [
        warning
        for warning in budget.plan("1e11", large, law=elsewhere, speed=SPEED, context=64).warnings
        if "its interval does not hold" in warning
    ]
    assert text.startswith(f"the law is of text a/{name}, wiki, the plan of {large.facts.source}")


def test_rules_that_were_not_asked_are_named_with_what_they_say(large: Corpus, law: Path) -> None:
    made = budget.plan("1e12", large, law=law, speed=SPEED)
    [line] = [line for line in budget_words.lines(made) if line.startswith("other priors")]
    scale = Scale.of(made.architecture, made.tokens, made.length)
    for name in ("deepseek", "porian", "step_law"):
        assert f"{name} {priors.suggest(name, scale).learning_rate:.2g} at" in line
    assert "power_lines no rate at" in line
    assert "step_law_small" not in line


def test_the_next_runs_are_cheap_and_make_the_law_surer(large: Corpus, law: Path) -> None:
    made = budget.plan("1e14", large, law=law, speed=SPEED)
    spreads = [made.spread, *(one.spread for one in made.next_runs)]
    assert len(spreads) == 4
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[-1] < spreads[0]
    for one in made.next_runs:
        assert one.flops <= 0.1 * made.flops * (1 + 1e-9)
        assert one.tokens <= 4 * made.unique_tokens


def test_settings_beside_the_budget_go_over_the_plan_and_are_said(corpus: Path, law: Path) -> None:
    said: list[str] = []
    given: dict[str, Any] = {
        "architecture": {"hidden_size": 32, "num_layers": 1},
        "data": {"corpus": str(corpus)},
        "training": {
            "batch_size": 4, "threads": 1, "precision": "fp32", "matmul": "highest", "compile": False,
            "optimizer": {"lr": 0.003},
        },
    }  # fmt: skip
    found = dial.dial("2e10", given, "test", law=law, say=said.append)
    config = found.planned.config
    assert (config.architecture.hidden_size, config.architecture.num_layers) == (32, 1)
    assert (config.training.batch_size, config.training.optimizer["lr"]) == (4, 0.003)
    assert config.training.optimizer["weight_decay"] == found.plan.settings.weight_decay
    cost = flops_per_token(config.architecture, config.data.context_length)
    assert 0.9 * 2e10 < found.plan.tokens * cost <= 2e10
    assert found.planned.figures["tokens"] == found.plan.tokens
    lines = "\n".join(said)
    assert "training.optimizer.lr = 0.003, in place of" in lines
    assert "training.batch_size = 4, in place of" in lines
    count = count_parameters(config.architecture).total
    assert f"\nparameters    {count:,} parameters: llama of width 32 by 1 layers, as the settings say" in lines
    assert "\nrate          0.003 (as given)" in lines
    assert found.plan.settings.learning_rate == 0.003
    assert "\nschedule      wsd (" in lines


def test_another_optimiser_and_schedule_are_said_with_their_own_settings(corpus: Path, law: Path) -> None:
    said: list[str] = []
    given: dict[str, Any] = {
        "data": {"corpus": str(corpus)},
        "training": {
            "threads": 1, "precision": "fp32", "matmul": "highest", "compile": False,
            "optimizer": {"name": "muon"}, "schedule": {"name": "cosine"},
        },
    }  # fmt: skip
    found = dial.dial("2e10", given, "test", law=law, say=said.append)
    training = found.planned.config.training
    assert training.schedule["floor"] == 0.1, "cosine's own, not that of the plan's schedule"
    chosen = found.plan.settings
    assert (chosen.learning_rate, chosen.weight_decay, chosen.warmup_steps) == (
        training.optimizer["lr"], training.optimizer["weight_decay"], training.schedule["warmup_steps"]
    )  # fmt: skip
    lines = "\n".join(said)
    assert "\noptimiser     muon (as given; the rules" in lines
    assert "\nschedule      cosine (as given; a ladder's runs have wsd" in lines
    assert f"\nrate          {training.optimizer['lr']:.3g} (as given, or what muon takes by itself)" in lines


def test_a_batch_that_is_given_moves_the_rate_and_keeps_the_tokens_of_the_warm_up(
    large: Corpus, law: Path
) -> None:
    made = budget.plan("1e13", large, law=law, speed=SPEED)
    chosen, steps = made.settings, 4 * made.settings.steps
    assert chosen.batch_size >= 4
    fewer = chosen.batch_size // 4
    moved = budget.with_steps(made, fewer, fewer, steps, reason="by the test", speed=SPEED).settings
    wanted = chosen.wanted_rate * math.sqrt(fewer / chosen.batch_size)
    assert moved.learning_rate == pytest.approx(min(wanted, hyper.CEILING))
    assert moved.warmup_steps * fewer == pytest.approx(chosen.warmup_steps * chosen.batch_size, rel=0.1)
    given = {"data": {"corpus": str(large.directory)}, "training": {"batch_size": fewer}}
    tree = dial._settings(made, large, given)["training"]
    assert tree["optimizer"]["lr"] == moved.learning_rate
    assert tree["optimizer"]["weight_decay"] == moved.weight_decay
    assert tree["schedule"]["warmup_steps"] == moved.warmup_steps


def test_steps_that_are_given_are_trained_and_foretold(corpus: Path, law: Path) -> None:
    given: dict[str, Any] = {
        "architecture": {"hidden_size": 32, "num_layers": 1},
        "data": {"corpus": str(corpus), "context_length": 32},
        "training": {
            "steps": 7, "batch_size": 4, "threads": 1, "precision": "fp32", "matmul": "highest", "compile": False
        },
    }  # fmt: skip
    said: list[str] = []
    found = dial.dial(None, given, "test", law=law, say=said.append)
    training = found.planned.config.training
    assert (training.steps, training.batch_size, found.plan.tokens) == (7, 4, 7 * 4 * 32)
    planned = found.plan.memory.moments[found.plan.memory.peak].total
    assert planned == found.planned.figures["memory_bytes"]["total"]  # of the batch that is trained with
    assert training.schedule["warmup_steps"] <= 1
    assert found.plan.reasons["steps"] == "as given"
    there = predict(law_of(law), found.plan.architecture, 7 * 4 * 32, 32, found.plan.unique_tokens)
    assert found.plan.predicted == there


def test_the_steps_follow_from_the_time_that_updates_take(
    corpus: Path, law: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {
        "data": {"corpus": str(corpus)},
        "training": {"threads": 1, "precision": "fp32", "matmul": "highest", "compile": False},
    }
    from lmwright.recipes import pretrain_plan

    monkeypatch.setattr(budget, "this_machine", lambda: SPEED)
    monkeypatch.setattr(pretrain_plan._Twin, "step_seconds", lambda self, least: (0.2, 0.25))
    said: list[str] = []
    found = dial.dial("70s", given, "test", law=law, say=said.append)
    training, measured = found.planned.config.training, found.planned.data.validation
    assert measured is not None
    reading = 0.25 * measured.num_tokens / (training.batch_size * found.plan.length) / 3
    evaluations = min(10, max(1, math.floor(7 / reading)))
    assert training.steps == math.floor((63 - evaluations * reading) / 0.25)
    assert found.plan.settings.steps == training.steps
    assert training.eval_every == math.ceil(training.steps / evaluations)
    assert training.schedule["warmup_steps"] == found.plan.settings.warmup_steps <= training.steps // 10
    level = training.steps - training.steps // 5
    assert training.factor(level) == 1.0 > training.factor(level + 1)
    assert found.plan.seconds == pytest.approx(0.25 * training.steps, rel=1e-6)
    assert said[0].startswith("an update runs at"), "the assumed rate was far off, so the model was planned again"
    assert any("hold so many updates" in line for line in said)


def test_predicted_stands_beside_measured() -> None:
    law = {"metric": "nats/token", "own": True}
    kept = {"law": law, "loss": {"loss": 2.2, "worth": 1.0, "low": 1.9, "high": 2.4, "warnings": []}}
    line = budget_words.compared(kept, {"loss": 2.0, "bits_per_byte": 1.0})
    assert "2.0000 nats/token" in line
    assert "9.1% better than foretold; predicted 2.2 " in line
    assert line.endswith(": within it")
    worse = budget_words.compared(kept, {"loss": 2.5})
    assert "13.6% worse than foretold" in worse
    assert worse.endswith(": outside it")
    assert "54.5% better" in budget_words.compared(
        {**kept, "law": {**law, "metric": "bits/byte"}}, {"bits_per_byte": 1}
    )
    assert "another corpus" in budget_words.compared({**kept, "law": {**law, "own": False}}, {"loss": 2.5})
    for budget_kept, last in ((None, {"loss": 1.0}), (kept, None), ({}, {"loss": 1.0}), (kept, {})):
        assert budget_words.compared(budget_kept, last) == ""


REFUSED = {
    "steps": (["--budget", "5s", "--steps", "4"], "leave one of them away"),
    "steps as a setting": (["--budget", "5s", "training.steps=4"], "the steps follow from the budget"),
    "law alone": (["--law", "x.json"], "--law is for --budget"),
    "resume": (["--budget", "5s", "--resume"], "cannot be changed"),
    "no unit": (["--budget", "5"], "a time needs its unit"),
    "devices": (["--budget", "8xH100 3d"], "names devices"),
    "context": (["--budget", "5s", "data.context_length=1"], "whole number from 2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, message = REFUSED[name]
    assert run(["pretrain", "--corpus", str(corpus), "--out", str(tmp_path / "run"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_several_processes_are_refused(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in facts.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="one process"):
        dial.dial("5s", {"data": {"corpus": str(corpus)}}, "test")


def test_the_verb_prints_the_plan(corpus: Path, law: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--budget", "1e12", "--corpus", str(corpus), "--law", str(law)]
    assert run(words) == 0
    shown = capsys.readouterr().out
    for name in ("parameters", "epochs", "rate", "warm-up", "weight decay", "memory", "time", "loss", "next runs"):
        assert f"\n{name:<14}" in shown
    assert run([*words, "--json", "--context", "32", "--family", "gpt2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["context_length"], found["architecture"]["family"]) == (32, "gpt2")
    assert found["loss"]["low"] < found["loss"]["loss"] < found["loss"]["high"]
    assert found["law"] == {**found["law"], "name": "chinchilla", "own": True}
    for more in (["--budget", "1e12"], ["--corpus", str(corpus)], [*words[1:], "memory"]):
        assert run(["plan", *more]) == 2
    assert run([*words[:-1], str(corpus / "corpus.json")]) == 2
    assert "corpus.json" in capsys.readouterr().err


def test_a_measured_plan_reckons_with_what_updates_take(
    corpus: Path, law: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmwright.recipes import pretrain_plan

    monkeypatch.setattr(budget, "this_machine", lambda: SPEED)
    monkeypatch.setattr(pretrain_plan._Twin, "step_seconds", lambda self, least: (0.2, 0.25))
    words = ["plan", "--budget", "30s", "--corpus", str(corpus), "--law", str(law), "--context", "32"]
    assert run(words) == 0
    assert "40% of its peak, as assumed" in capsys.readouterr().out
    assert run([*words, "--measure", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["machine"]["measured"] is True
    assert found["context_length"] == 32
    assert found["seconds"] == pytest.approx(0.25 * found["steps"], rel=1e-6)
    assert found["seconds"] <= 30
    assert run(["plan", "--budget", "8xH100 3d", "--corpus", str(corpus), "--measure"]) == 2
    assert "--measure times this machine" in capsys.readouterr().err


def test_help_and_refusals_import_no_torch() -> None:
    program = (
        "import sys; from lmwright.cli.main import run\n"
        "codes = [run(['plan', '--help']), run(['plan', '--budget', '5', '--corpus', 'x'])]\n"
        "codes += [run(['pretrain', '--budget', '5', '--corpus', 'x', '--out', 'y'])]\n"
        "codes += [run(['pretrain', '--budget', '5s', '--steps', '2', '--out', 'y'])]\n"
        "codes += [run(['plan', '--budget', '8xH100 3d', '--corpus', 'nowhere'])]\n"
        "assert codes[:4] == [0, 2, 2, 2] and codes[4] in (1, 2), codes\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_a_family_that_is_no_name_is_refused(corpus: Path) -> None:
    given = {"architecture": {"family": 5}, "data": {"corpus": str(corpus)}}
    with pytest.raises(ConfigError, match="family = 5: must be the name of a family"):
        dial.dial("1e12", given, "test")


def test_a_batch_of_fewer_sequences_than_devices_is_warned_of(corpus: Path, law: Path) -> None:
    made = budget.plan("512xL4 1s", Corpus.open(corpus), law=law)
    batch = made.settings.batch_size
    assert batch < 512
    [said] = [line for line in budget_words.lines(made) if "sequences for" in line]
    assert said.startswith(f"warning       the batch has {batch} sequences for 512 devices")
    assert f"at most {batch} devices and a longer time, or with more text" in said
    fewer = budget.plan(f"{batch}xL4 {512 / batch:.6f}s", Corpus.open(corpus), law=law)
    assert fewer.settings.batch_size >= batch, "what is advised can be run"
    assert not any("sequences for" in warning for warning in fewer.warnings)


def test_the_ladder_that_is_advised_is_of_the_plans_family_and_context(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "a corpus; of $words"
    place.symlink_to(corpus, target_is_directory=True)

    def advised(**kind: Any) -> list[str]:
        made = budget.plan("1e12", Corpus.open(place), speed=SPEED, **kind)
        [line] = [line for line in budget_words.lines(made) if "lmwright ladder" in line]
        return shlex.split(line)

    words = advised(family="lstm", context=32)
    assert words[words.index("--corpus") + 1] == str(place)
    assert words[words.index("--family") + 1] == "lstm"
    assert words[words.index("--context") + 1] == "32"
    assert run([*words[1:], "--dry-run"]) == 0, capsys.readouterr().err
    usual = advised(family="llama", context=256)
    assert not {"--family", "--context"} & set(usual)


def test_the_time_for_the_models_own_reading_is_not_trained_in(
    corpus: Path, law: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {
        "data": {"corpus": str(corpus), "context_length": 32},
        "training": {"threads": 1, "precision": "fp32", "matmul": "highest", "compile": False},
    }
    from lmwright.recipes import pretrain_plan

    monkeypatch.setattr(budget, "this_machine", lambda: SPEED)
    monkeypatch.setattr(pretrain_plan._Twin, "step_seconds", lambda self, least: (0.001, 0.001))
    found = dial.dial("50s", given, "test", law=law, say=lambda line: None)
    tokens = 1.5 * found.plan.flops / flops_per_token(found.plan.architecture, 32)  # half the budget, to read
    reading = dial.dial("50s", given, "test", law=law, inference_tokens=tokens, say=lambda line: None)
    share = 1 - tokens / 3 * flops_per_token(reading.plan.architecture, 32) / reading.plan.flops
    assert 0.1 < share < 0.9
    whole, kept = (one.plan.settings.steps for one in (found, reading))
    assert kept == pytest.approx(share * whole, rel=0.02)
    assert reading.planned.config.training.steps == kept
    left = f"{50 * share:.3g} s, what the model's own reading leaves of 50 s, hold so many"
    assert left in reading.plan.reasons["steps"]
    assert "leaves" not in found.plan.reasons["steps"]
