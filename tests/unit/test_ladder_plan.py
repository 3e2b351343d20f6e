"""The grid of a ladder, its rates and its bookkeeping, with losses made up: nothing is trained here."""

from __future__ import annotations

import json
import math
import operator
import os
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from data_helpers import corpus_of, sample_texts, small_tokenizer

from lmwright.cli import main as cli
from lmwright.data.build import Corpus
from lmwright.errors import ConfigError, DataError
from lmwright.recipes import ladder as recipe
from lmwright.recipes import ladder_job, ladder_plan, ladder_sweep, workers
from lmwright.recipes.ladder_plan import Ladder, Trunk
from lmwright.recipes.ladder_sweep import Tried
from lmwright.recipes.pretrain_config import resolve
from lmwright.recipes.workers import JobFailed
from lmwright.scaling.flops import count_parameters
from lmwright.scaling.planning import hyper


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus.open(corpus_of(tmp_path_factory.mktemp("ladder"), sample_texts(60), small_tokenizer()))


def ask(corpus: Corpus, **more: Any) -> Ladder:
    usual = {"sizes": (35e3, 110e3), "tokens_per_parameter": 0.05, "lengths": 3, "context_length": 32}
    return Ladder(corpus=str(corpus.directory.absolute()), **{**usual, **more})


def test_every_length_has_twice_the_tokens_and_a_fifth_of_it_decays(corpus: Corpus) -> None:
    for trunk in ladder_plan.trunks(ask(corpus, lengths=4), corpus):
        for number in range(4):
            steps, decay = trunk.steps(number), trunk.decaying(number)["decay_steps"]
            assert steps == trunk.piece(number) + decay
            assert steps == 5 * decay
            assert trunk.tokens(number) == trunk.tokens(0) * 2**number
        assert trunk.tokens(0) == pytest.approx(0.05 * trunk.parameters, rel=0.1)
        # The pieces follow each other, so the trunk is trained once; each run adds its decay alone.
        pieces = [trunk.piece(0), *(trunk.piece(n) - trunk.piece(n - 1) for n in (1, 2, 3))]
        assert trunk.updates == sum(pieces) + sum(trunk.steps(n) - trunk.piece(n) for n in range(4))
        assert trunk.warmup < trunk.piece(0)


def test_a_run_file_is_the_planned_model_and_decays_to_nothing(corpus: Corpus) -> None:
    trunk = ladder_plan.trunks(ask(corpus), corpus)[1]
    settings = trunk.run_file(
        str(corpus.directory), steps=trunk.steps(1), schedule=trunk.decaying(1), rate=trunk.settings.learning_rate
    )
    config = resolve(settings, "test")
    assert config.architecture == trunk.config
    assert count_parameters(config.architecture).total == trunk.parameters
    training = config.training
    assert (training.threads, training.compile) == (1, False)
    rates = [training.lr(step) for step in range(training.steps)]
    flat = rates[trunk.warmup : trunk.piece(1) + 1]
    assert flat == [trunk.settings.learning_rate] * len(flat)
    assert rates[trunk.piece(1) + 1] < flat[0]
    assert training.eval_every == trunk.steps(1), "only at its end"


def test_a_grid_with_right_angles_gives_each_size_the_same_tokens(corpus: Corpus) -> None:
    with pytest.raises(ConfigError, match=r"tokens = 40000 and tokens_per_parameter = 0\.05 both say how long"):
        ask(corpus, tokens=4e4)
    made = ladder_plan.trunks(ask(corpus, tokens=4e4, tokens_per_parameter=None), corpus)
    assert len({trunk.config for trunk in made}) == len(made) > 1
    for trunk in made:
        an_update = 5 * trunk.settings.batch_size * trunk.length  # the shortest run is a multiple of five
        assert abs(trunk.tokens(0) - 4e4) <= an_update / 2


def test_a_trunk_is_done_when_it_was_trained_for_nobody_evaluates_it(tmp_path: Path) -> None:
    records = [{"kind": "step", "step": 5, "loss": 3.5}, {"kind": "end", "step": 5, "loss": None}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "config.json").write_text(json.dumps({"training": {"steps": 5, "eval_every": 0}}))
    assert ladder_job.outcome(tmp_path, 5) == 3.5
    (tmp_path / "config.json").write_text(json.dumps({"training": {"steps": 5, "eval_every": 5}}))
    with pytest.raises(DataError, match="no loss on validation text"):
        ladder_job.outcome(tmp_path, 5)


def test_seeds_name_their_runs_and_keep_the_model(corpus: Corpus) -> None:
    made = ladder_plan.trunks(ask(corpus, seeds=(3, 5)), corpus)
    assert [(trunk.name, trunk.seed) for trunk in made] == [
        ("35k-seed3", 3),
        ("35k-seed5", 5),
        ("110k-seed3", 3),
        ("110k-seed5", 5),
    ]
    assert made[0].config == made[1].config != made[2].config


def test_sizes_are_spaced_evenly_and_named(corpus: Corpus) -> None:
    assert ladder_plan.sizes_between(1e5, 1.6e6, 5) == (1e5, 2e5, 4e5, 8e5, 1.6e6)
    named = {250e3: "250k", 1.5e6: "1.5m", 1e9: "1b", 800: "800", 999_999: "1m"}
    assert {size: ladder_plan.label(size) for size in named} == named
    with pytest.raises(ConfigError, match="the smallest first"):
        ladder_plan.sizes_between(2e5, 1e5, 3)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"sizes": (35e3, 36e3)}, "35k and 36k are the same model"),
        ({"tokens_per_parameter": 0.001}, r"fewer than the .*raise --tokens-per-parameter"),
        ({"sizes": (1e3,)}, "1e\\+03 parameters"),
        ({"family": "lama"}, "did you mean llama"),
    ],
)
def test_what_makes_no_ladder_is_refused(corpus: Corpus, asked: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ladder_plan.trunks(ask(corpus, **asked), corpus)


@pytest.mark.parametrize("asked", [{"sizes": ()}, {"sizes": (1e5, 1e5)}, {"seeds": (1, 1)}, {"seeds": ()}])
def test_none_and_twins_are_refused(corpus: Corpus, asked: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="each another one"):
        ask(corpus, **asked)


def valley(trunk: Trunk, batch: float, rate: float) -> Callable[[int, float], float]:
    """Return a loss with its bottom at so many times the batch and the rate of the prior."""
    at_batch, at_rate = batch * trunk.settings.batch_size, rate * trunk.settings.learning_rate

    def loss(batch_size: int, learning_rate: float) -> float:
        moved = at_rate * math.sqrt(batch_size / at_batch)
        return 3 + 0.1 * math.log(learning_rate / moved) ** 2 + 0.03 * math.log(batch_size / at_batch) ** 2

    return loss


def swept(trunk: Trunk, loss: Callable[[int, float], float]) -> list[Tried]:
    """Try batches and rates as the sweep does."""
    tried: list[Tried] = []
    while pairs := ladder_sweep.wanted(trunk, tried):
        tried += [Tried(batch_size=size, learning_rate=rate, loss=loss(size, rate)) for size, rate in pairs]
    return tried


@pytest.fixture(scope="module")
def smallest(corpus: Corpus) -> Trunk:
    """The smallest size with batches below and above the prior's that leave room for a decay."""
    [trunk] = ladder_sweep.trunks(ask(corpus, tokens_per_parameter=4.0), corpus)
    assert trunk.settings.batch_size >= 4
    assert ladder_sweep.possible(trunk, 8 * trunk.settings.batch_size)
    return trunk


@pytest.mark.parametrize(
    ("rate", "count"), [(1.0, 9), (1.3, 9), (2.5, 10), (0.4, 10), (4.0, 11), (0.1, 12), (100.0, 21)]
)
def test_the_sweep_goes_on_until_the_best_rate_lies_between_others(
    smallest: Trunk, rate: float, count: int
) -> None:
    tried = swept(smallest, valley(smallest, 1.0, rate))
    assert len(tried) == count
    assert len({(one.batch_size, one.learning_rate) for one in tried}) == count
    if rate < 10:
        best = ladder_sweep.rules([(smallest, tried)]).optima[0]
        assert best.learning_rate == pytest.approx(rate * smallest.settings.learning_rate)


@pytest.mark.parametrize(("times", "batches"), [(1.0, 3), (1.4, 3), (3.0, 5), (0.34, 5)])
def test_the_sweep_goes_on_until_the_best_batch_does(smallest: Trunk, times: float, batches: int) -> None:
    tried = swept(smallest, valley(smallest, times, 1.3))
    assert len({one.batch_size for one in tried}) == batches
    best = ladder_sweep.rules([(smallest, tried)]).optima[0]
    assert best.batch_tokens == pytest.approx(times * smallest.settings.batch_size * smallest.length)


def test_a_batch_without_room_for_a_decay_is_not_tried(corpus: Corpus) -> None:
    [trunk] = ladder_sweep.trunks(ask(corpus), corpus)
    largest = max(size for size in range(1, 999) if ladder_sweep.possible(trunk, size))
    tried = swept(trunk, valley(trunk, 64.0, 1.0))
    assert {one.batch_size for one in tried} == {
        size for size in (trunk.settings.batch_size // 2, trunk.settings.batch_size) if size
    } | {size for size in (2 * trunk.settings.batch_size,) if size <= largest}


def test_trials_of_all_batches_read_the_same_tokens(corpus: Corpus, smallest: Trunk) -> None:
    for size in (smallest.settings.batch_size // 2, 2 * smallest.settings.batch_size):
        settings = resolve(ladder_sweep.run_file(smallest, str(corpus.directory), size, 0.01), "test").training
        assert settings.batch_size == size
        assert settings.steps * size == pytest.approx(
            smallest.steps(0) * smallest.settings.batch_size, rel=0.5 / smallest.unit * 2
        )
        assert settings.optimizer["lr"] == 0.01


def test_what_was_measured_is_what_is_chosen_there(smallest: Trunk) -> None:
    """Rate and batch both; and a run that diverged is no obstacle."""
    tried = swept(smallest, valley(smallest, 1.0, 1.4))
    rules = ladder_sweep.rules([(smallest, [*tried, replace(tried[0], learning_rate=9.0, loss=math.inf)])])
    found = hyper.choose(smallest.config, smallest.tokens(0), smallest.length, rules=rules)
    assert found.batch_size == smallest.settings.batch_size
    assert found.learning_rate == pytest.approx(1.4 * smallest.settings.learning_rate, rel=1e-6)
    assert "as measured on 1 size" in found.reasons["learning_rate"]
    assert "as measured on 1 size" in found.reasons["batch_size"]


class Instead(workers.Pool):
    """Trains nothing: a run has the loss that `loss` gives, or fails where that raises. Keeps the order."""

    def __init__(self, loss: Callable[[Path], float]) -> None:
        super().__init__(1)
        self.loss = loss
        self.order: list[str] = []
        self.closed = False

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        out = next(one for one in reversed(arguments) if isinstance(one, Path))
        self.order.append("/".join(out.parts[-2:]))
        return super().submit(self.loss, out)

    def carry_out(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[bool, Any]:
        return workers.attempt(function, arguments)

    def stop(self) -> None:
        self.closed = True

    def release(self) -> None:
        """Nothing is held."""


def climb(
    monkeypatch: pytest.MonkeyPatch, asked: Ladder, out: Path, loss: Callable[[Path], float]
) -> tuple[Instead, list[str]]:
    pool, said = Instead(loss), []
    monkeypatch.setattr(workers, "open_pool", lambda name, count: pool)
    try:
        recipe.ladder(asked, out, say=said.append)
    finally:
        assert pool.closed
    return pool, said


def test_cool_downs_wait_for_their_piece_of_the_trunk(corpus: Corpus, tmp_path: Path, monkeypatch) -> None:
    asked = ask(corpus, sweep=0)
    pool, said = climb(monkeypatch, asked, tmp_path / "out", lambda out: 3.0)
    made = ladder_plan.trunks(asked, corpus)
    for trunk in made:
        places = [pool.order.index(f"trunks/{trunk.name}-{trunk.piece(number)}") for number in range(3)]
        assert places == sorted(places)
        for number in range(3):
            assert pool.order.index(f"runs/{trunk.run_name(number)}") > places[number]
    assert len(pool.order) == 12
    assert pool.order[0].startswith("trunks/110k")  # the dearest first
    record = json.loads((tmp_path / "out" / "ladder.json").read_text())
    assert [run["path"] for run in record["runs"]] == [f"runs/{t.run_name(n)}" for t in made for n in range(3)]
    assert {run["loss"] for run in record["runs"]} == {3.0}
    assert "6 runs are finished" in said[-1]


def test_a_failure_is_named_and_takes_no_other_with_it(corpus: Corpus, tmp_path: Path, monkeypatch) -> None:
    asked = ask(corpus, sweep=0)
    small = ladder_plan.trunks(asked, corpus)[0]
    broken = f"{small.name}-{small.piece(1)}"

    def loss(out: Path) -> float:
        if out.name == broken:
            raise ConfigError("the disk is full")
        return 3.0

    said: list[str] = []
    pool = Instead(loss)
    monkeypatch.setattr(workers, "open_pool", lambda name, count: pool)
    with pytest.raises(JobFailed, match=rf"trunks/{broken}: the disk is full \(and 3 more"):
        recipe.ladder(asked, tmp_path / "out", say=said.append)
    assert sum("FAILED" in line for line in said) == 4  # it, what would lengthen it, and the two that fork there
    done = {path for path in pool.order if path.startswith("runs/")}
    assert len(done) == 4
    assert f"runs/{small.run_name(0)}" in done


@pytest.mark.parametrize(
    ("sweep", "size", "advice"),
    [
        (0, 0, "measure the rate at that size, too (--sweep 1), or choose other --sizes, with another --out"),
        (1, 1, "measure the rate at that size, too (--sweep 2), or choose other --sizes, with another --out"),
        (2, 1, "; choose other --sizes, with another --out"),
    ],
)
def test_a_run_that_diverged_is_not_to_be_tried_again(
    corpus: Corpus, tmp_path: Path, monkeypatch, sweep: int, size: int, advice: str
) -> None:
    asked = ask(corpus, sweep=sweep, seeds=(3, 4), lengths=1, tokens_per_parameter=4.0)
    trunk = ladder_plan.trunks(asked, corpus)[2 * size]

    def diverge(out: Path) -> float:
        return math.inf if out.parent.name == "trunks" and out.name.startswith(f"{trunk.name}-") else 3.0

    with pytest.raises(JobFailed, match="its loss was not finite") as failure:
        climb(monkeypatch, asked, tmp_path / "out", diverge)
    assert advice in str(failure.value)
    assert "goes on" not in str(failure.value)


def test_what_did_not_diverge_goes_on_beside_what_did(corpus: Corpus, tmp_path: Path, monkeypatch) -> None:
    asked = ask(corpus, sweep=0)
    small, large = ladder_plan.trunks(asked, corpus)

    def loss(out: Path) -> float:
        if out.name == f"{large.name}-{large.piece(0)}":
            raise ConfigError("the disk is full")
        return math.inf if out.name == small.run_name(1) else 3.0

    with pytest.raises(JobFailed) as failure:
        climb(monkeypatch, asked, tmp_path / "out", loss)
    said = str(failure.value)
    assert "goes on with what is left, but not with what diverged: for that, measure" in said
    assert "(--sweep 1)" in said


def test_the_sweep_decides_rate_and_batch_of_every_trunk(corpus: Corpus, tmp_path: Path, monkeypatch) -> None:
    asked = ask(corpus, lengths=1, sweep=2, tokens_per_parameter=4.0)
    sizes = {trunk.name: trunk for trunk in ladder_sweep.trunks(asked, corpus)}

    def loss(out: Path) -> float:
        if out.parent.name != "sweep":
            return 3.0
        size, batch, rate = out.name.split("-", 2)
        return valley(sizes[size], 1.0, 1.3)(int(batch.removeprefix("batch")), float(rate))

    pool, _ = climb(monkeypatch, asked, tmp_path / "out", loss)
    record = json.loads((tmp_path / "out" / "ladder.json").read_text())
    assert [len(size["trials"]) for size in record["sweep"]] == [9, 9]
    assert all(path.startswith("sweep/") for path in pool.order[:18])
    for run, trunk in zip(record["runs"], sizes.values(), strict=True):
        assert run["learning_rate"] == pytest.approx(1.3 * trunk.settings.learning_rate, rel=0.02)
        assert run["batch_size"] == trunk.settings.batch_size
        assert "as measured on 2 sizes" in run["reason"]


def test_another_ladder_and_another_directory_are_refused(corpus: Corpus, tmp_path: Path, monkeypatch) -> None:
    asked, out = ask(corpus, sweep=0, lengths=1), tmp_path / "out"
    climb(monkeypatch, asked, out, lambda path: 3.0)
    assert recipe.asked_before(out) == asked
    with pytest.raises(ConfigError, match=r"begun with seeds = \(0,\), not \(1,\); go on with it by --resume"):
        recipe.ladder(replace(asked, seeds=(1,)), out)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("Dear")
    with pytest.raises(ConfigError, match=r"letters: holds a\.txt and no ladder"):
        recipe.ladder(asked, tmp_path / "letters")


def test_a_run_is_over_when_its_own_end_is_written(tmp_path: Path) -> None:
    def write(*records: dict[str, Any]) -> Path:
        (tmp_path / "config.json").write_text(json.dumps({"training": {"steps": 5}}))
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        return tmp_path

    step, loss = {"kind": "step", "step": 5}, {"kind": "evaluation", "step": 5, "loss": 2.5}
    assert ladder_job.outcome(tmp_path / "none", 5) is None
    assert ladder_job.outcome(write(step, loss), 5) is None
    assert ladder_job.outcome(write(step, loss, {"kind": "end", "step": 4}), 5) is None
    assert ladder_job.outcome(write(step, loss, {"kind": "end", "step": 5}), 5) == 2.5
    assert ladder_job.outcome(write(step, {"kind": "nonfinite", "step": 5}), 5) == math.inf
    with pytest.raises(ConfigError, match="is a run of 5 steps, and the ladder's has 10"):
        ladder_job.outcome(tmp_path, 10)


def test_processes_do_jobs_and_outlive_one_that_dies() -> None:
    pool = workers.open_pool("processes", 2)
    try:
        fine, wrong, dead = (
            pool.submit(operator.add, 2, 3),
            pool.submit(operator.truediv, 1, 0),
            pool.submit(os._exit, 3),
        )
        assert fine.result() == 5
        with pytest.raises(JobFailed, match="internal error: ZeroDivisionError"):
            wrong.result()
        with pytest.raises(JobFailed, match="its process ended early, with exit code 3"):
            dead.result()
        assert [pool.submit(operator.mul, 2, number).result() for number in range(4)] == [0, 2, 4, 6]
        assert pool.submit(os.getpid).result() != os.getpid()
    finally:
        pool.close()


def test_an_unknown_place_to_run_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean processes"):
        workers.open_pool("process", 1)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--corpus c --sizes 1m", "--out is missing"),
        ("--out o --sizes 1m", "--corpus is missing"),
        ("--out o --corpus c", "give --sizes, or all of"),
        ("--out o --corpus c --sizes 1m --count 3", "give --sizes, or all of"),
        ("--out o --corpus c --smallest 1m --largest 2m", "give --sizes, or all of"),
        ("--out o --corpus c --sizes 1m,x", "'x' is no size"),
        ("--out o --corpus c --sizes 1m --sweep 2", "sweep = 2, more than its 1 sizes"),
        ("--corpus c --sizes 1m --on the-moon --dry-run", "'the-moon' is not one of"),
        ("--out o --corpus c --sizes 1m --tokens many", "'many' is no size; give it as 250k"),
        ("--out o --corpus c --sizes 1m --seeds 1,-2", "give whole numbers"),
        ("--out o --resume --sizes 1m --lengths 2", "so sizes, lengths cannot go with it"),
        ("--out o --corpus c --sizes 1m --lengths 99", "lengths"),
        ("--out nowhere --resume", "holds no ladder to go on with"),
    ],
)
def test_the_command_refuses(line: str, says: str, capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["ladder", *line.split()]) in (1, 2)
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_ladder_does_not_go_on_with_other_text(corpus: Corpus, tmp_path: Path, monkeypatch) -> None:
    asked, out = ask(corpus, sweep=0, lengths=1), tmp_path / "out"
    climb(monkeypatch, asked, out, lambda path: 3.0)
    record = json.loads((out / "ladder.json").read_text())
    for name in ("tokenizer", "tokens"):
        other = {**record, "text": {**record["text"], name: "0" * 64}}
        (out / "ladder.json").write_text(json.dumps(other))
        with pytest.raises(DataError, match=f"was begun on a corpus with {name} 000000000000, and .*built anew"):
            climb(monkeypatch, asked, out, lambda path: 3.0)
        assert json.loads((out / "ladder.json").read_text()) == other  # and what it knew is kept
    (out / "ladder.json").write_text(json.dumps({**record, "text": []}))
    with pytest.raises(DataError, match="is damaged: text is no table"):
        climb(monkeypatch, asked, out, lambda path: 3.0)
    (out / "ladder.json").write_text(json.dumps({"runs": []}))
    with pytest.raises(DataError, match="is damaged: asked is missing"):
        recipe.asked_before(out)


def test_a_length_that_no_corpus_has_is_refused_before_anything_is_written(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"would have updates of .* and the corpus has"):
        recipe.ladder(ask(corpus, tokens_per_parameter=1e300), tmp_path / "out")
    assert not (tmp_path / "out").exists()
