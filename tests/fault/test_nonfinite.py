"""A loss or gradient that is no number ends the run before the update, with the step and the documents named."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import make_corpus, settings, weights

import lmwright.recipes.pretrain as recipe
from lmwright import objectives
from lmwright.cli import main
from lmwright.objectives import causal
from lmwright.recipes.pretrain import pretrain, resume
from lmwright.runs import RunDirectory
from lmwright.train.loop import NonFiniteError
from lmwright.train.optimizers.adamw import AdamW


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("nonfinite"))


def quiet(text: str) -> None:
    """Say nothing."""


def spoil(monkeypatch: pytest.MonkeyPatch, call: int, how: str) -> list[list[str]]:
    """Let the `call`-th micro-batch give a loss or a gradient that is no number; return its documents."""
    real, calls, documents = recipe._train, [0], list[list[str]]()
    loaders: list[Any] = []

    def loss(model: Any, batch: Any, ctx: Any) -> Any:
        output = causal.loss(model, batch, ctx)
        calls[0] += 1
        if calls[0] != call:
            return output
        documents.append(loaders[0].documents_of(batch.sample_ids))
        if how == "loss":
            return replace(output, sum=output.sum * math.inf)
        # The square root has an infinite slope at zero, and the value is as before.
        zero = model.model.norm.weight[:1] * 0.0
        return replace(output, sum=output.sum + torch.sqrt(zero.clamp(min=0.0)).sum())

    def train(*arguments: Any) -> Any:
        import lmwright.data.loader as module

        class Watched(module.Loader):
            def __init__(self, *args: Any, **names: Any) -> None:
                super().__init__(*args, **names)
                loaders.append(self)

        monkeypatch.setattr(objectives, "load", lambda *_, **__: loss)
        monkeypatch.setattr(module, "Loader", Watched)
        return real(*arguments)

    monkeypatch.setattr(recipe, "_train", train)
    return documents


@pytest.mark.parametrize(("how", "what"), [("loss", "loss"), ("gradient", "gradient norm")])
def test_it_stops_before_the_update_and_keeps_what_was_good(
    how: str, what: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    chosen = settings(corpus)
    pretrain(
        {**chosen, "training": {**chosen["training"], "steps": 12}}, tmp_path / "good", where="test", say=quiet
    )
    with monkeypatch.context() as patch:
        documents = spoil(patch, 23, how)  # the second of the three micro-batches of step 8
        with pytest.raises(NonFiniteError, match=f"the {what} of step 8 is not finite") as stopped:
            pretrain(chosen, run, where="test", say=quiet)
    assert (run / "latest").read_text() == "step-000006\n"
    record = RunDirectory(run).metrics()[-1]
    assert (record["kind"], record["step"], record["what"]) == ("nonfinite", 8, what)
    if how == "loss":
        assert record["documents"] == documents[0]
    else:
        assert set(documents[0]) <= set(record["documents"])
    assert record["documents"][0] in str(stopped.value)
    resume(run, say=quiet)
    assert weights(run) == weights(tmp_path / "good")


def test_the_message_is_one_line_and_says_what_to_do(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 2, "loss")
    with pytest.raises(NonFiniteError) as stopped:
        pretrain(settings(corpus), tmp_path / "run", where="test", say=quiet)
    message = str(stopped.value)
    assert "\n" not in message
    assert "nothing was updated or saved" in message
    assert ".txt" in message
    assert not (tmp_path / "run" / "latest").exists()


def too_far(monkeypatch: pytest.MonkeyPatch, update: int, value: float) -> None:
    """Let the run's `update`-th update, which began with finite gradients, set one weight to `value`."""
    real, real_step, calls = recipe._train, AdamW.step, [0]

    def step(self: AdamW, lr: float) -> None:
        real_step(self, lr)
        calls[0] += 1
        if calls[0] == update:
            with torch.no_grad():
                self._parameters["model.norm.weight"][3] = value

    def train(*arguments: Any) -> Any:
        monkeypatch.setattr(AdamW, "step", step)
        return real(*arguments)

    monkeypatch.setattr(recipe, "_train", train)


@pytest.mark.parametrize("every", [{}, {"eval_every": 1}, {"checkpoint_every": 5}])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_update_that_overflows_is_never_saved_nor_put_on_the_text(
    value: float, every: dict[str, int], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    too_far(monkeypatch, 7, value)
    chosen = settings(corpus, **{"checkpoint_every": 1, "keep_checkpoints": 1, **every})
    with pytest.raises(NonFiniteError, match=r"after step 7 model\.norm\.weight holds") as stopped:
        pretrain(chosen, run, where="test", say=quiet)
    kept = "step-000005" if "checkpoint_every" in every else "step-000006"
    assert f"the last good checkpoint, {kept}, is kept" in str(stopped.value)
    assert ".txt" not in str(stopped.value)
    assert "validation" not in str(stopped.value)
    assert [path.name for path in (run / "checkpoints").iterdir()] == [kept]
    record = RunDirectory(run).metrics()[-1]
    assert (record["kind"], record["step"], record["what"], record["documents"]) == ("nonfinite", 7, "update", [])


def test_weights_too_large_to_be_evaluated_are_blamed_and_not_the_text(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    too_far(monkeypatch, 2, 3e38)
    with pytest.raises(NonFiniteError, match=r"after step 2 the model's weights are too large.*no checkpoint"):
        pretrain(settings(corpus, eval_every=1), tmp_path / "run", where="test", say=quiet)
    assert not (tmp_path / "run" / "latest").exists()


@pytest.mark.parametrize("evaluation", ["training.eval_every=0", "training.eval_every=1"])
def test_a_hopeless_rate_fails_at_the_command_line(
    evaluation: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    sizes = ["architecture.hidden_size=16", "architecture.num_heads=2", "training.threads=1", "--context", "16"]
    words = ["--corpus", str(corpus), "--out", str(run), "--lr", "1e300", "--steps", "1", *sizes, evaluation]
    assert main.run(["pretrain", *words]) == 1
    error = capsys.readouterr().err
    assert "after step 1" in error
    assert error.count("\n") == 1
    assert not (run / "latest").exists()
