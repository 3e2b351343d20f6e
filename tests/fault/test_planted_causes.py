"""Each fault that the diagnosis knows, planted in a real run: a real corpus, model, loader and optimiser."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_helpers import corpus_of

from lmwright import objectives, seeds
from lmwright.config import merge
from lmwright.data.batch import Batch
from lmwright.data.build import Corpus
from lmwright.data.loader import Loader
from lmwright.data.pack import IGNORE_INDEX, plan_blocks
from lmwright.data.shards import DOCUMENTS_SUFFIX, Shard, ShardWriter
from lmwright.model.language_model import LanguageModel
from lmwright.recipes.pretrain_config import resolve
from lmwright.recipes.pretrain_data import open_data
from lmwright.recipes.watching import watch
from lmwright.runs import write_manifest
from lmwright.text.tokenizer import train_bpe
from lmwright.train import gradient, parts
from lmwright.train.diagnosis import Finding, Update

Spoil = Callable[[Batch, int], Batch]
SYLLABLES = ["ka", "lo", "mi", "tu", "re", "so", "ne", "pa"]


def make_corpus(place: Path) -> Path:
    """Text with an order to learn: after each of 64 words one of three follows."""
    random = np.random.default_rng(3)
    words = [first + second for first in SYLLABLES for second in SYLLABLES]
    following = random.integers(0, 64, size=(64, 3))
    texts = []
    for _ in range(120):
        word, text = int(random.integers(64)), []
        for _ in range(int(random.integers(20, 120))):
            text.append(words[word])
            word = int(following[word, random.integers(3)])
        texts.append(" ".join(text))
    return corpus_of(place, texts, train_bpe(texts, 360))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("diagnosis"))


def run(
    corpus: Path,
    *,
    spoil: Spoil = lambda batch, step: batch,
    factor: Callable[[int], float] | None = None,
    used: Callable[[float], float] = lambda lr: lr,
    **settings: Any,
) -> list[Finding]:
    """Train as the loop does and return what the watch finds.

    factor: what the optimiser is really given. used: what it says its rate was.
    """
    base: dict[str, Any] = {
        "architecture": {"hidden_size": 32, "num_layers": 1, "num_heads": 1, "ffn_size": 32},
        "data": {"corpus": str(corpus), "context_length": 32},
        "training": {
            "steps": 260,
            "batch_size": 8,
            "optimizer": {"lr": 3e-3},
            "threads": 1,
            "matmul": "highest",
            "precision": "fp32",
        },
    }
    config = resolve(merge(base, settings), "test")
    training, data = config.training, open_data(config, corpus, verify=False)
    loader = Loader(data.plan, batch_size=training.batch_size, seed=training.seed)
    model = LanguageModel(config.architecture)
    model.init_weights(seeds.torch_generator(training.seed, "init"))
    optimizer = parts.module("optimizers", training.optimizer).build(
        dict(model.named_parameters()), parts.settings("optimizers", training.optimizer), training.groups
    )
    observer = watch(config, data, model, loader.documents_of)
    findings = observer.start()
    for step in range(training.steps):
        batch = spoil(loader.next_batch(), step)
        found = gradient.compute(
            model,
            objectives.load("causal"),
            batch,
            micro_batch_size=training.batch_size,
            precision="fp32",
            clip_norm=training.clip_norm,
            dropout=lambda number: None,
        )
        optimizer.step((factor or training.factor)(step))
        findings += observer.after(
            Update(
                step=step + 1,
                loss=found.loss_sum / found.count,
                grad_norm=found.norm,
                lr=used(training.lr(step)),
                count=found.count,
                positions=batch.labels_BT.numel(),
                sample_ids=batch.sample_ids,
            )
        )
    return findings


HEALTHY = {
    "plain": {},
    "another seed": {"training": {"seed": 1}},
    "a low rate": {"training": {"optimizer": {"lr": 1e-3}}},
    "a high rate": {"training": {"optimizer": {"lr": 2e-2}}},
    "no warm-up": {"training": {"schedule": {"name": "constant", "warmup_steps": 0}}},
    "a long warm-up": {"training": {"schedule": {"warmup_steps": 150}}},
    "stable, then decay": {"training": {"schedule": {"name": "wsd"}}},
    "tiny batches": {"training": {"batch_size": 1, "steps": 400}},
    "packed documents": {"data": {"packing": "documents"}},
    "gpt2, unclipped": {"architecture": {"family": "gpt2"}, "training": {"clip_norm": None}},
}


QUICK = ("plain", "tiny batches", "a long warm-up")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in HEALTHY])
def test_a_healthy_run_has_no_finding(corpus: Path, name: str) -> None:
    assert run(corpus, **HEALTHY[name]) == []


def shuffled(batch: Batch, step: int) -> Batch:
    """Labels of the batch in any order: inputs say nothing about them."""
    order = torch.randperm(batch.labels_BT.numel(), generator=torch.Generator().manual_seed(step))
    return replace(batch, labels_BT=batch.labels_BT.flatten()[order].view_as(batch.labels_BT))


def blind(batch: Batch, step: int) -> Batch:
    """Inputs that are all the same."""
    return replace(batch, ids_BT=torch.zeros_like(batch.ids_BT))


@pytest.mark.parametrize("spoil", [shuffled, blind])
def test_inputs_that_say_nothing_leave_the_loss_at_the_unigram_entropy(corpus: Path, spoil: Spoil) -> None:
    [finding] = run(corpus, spoil=spoil, training={"batch_size": 16})
    assert finding.name == "unigram"
    assert finding.facts["loss"] == pytest.approx(finding.facts["unigram_entropy"], rel=0.03)
    assert "say nothing about the labels" in finding.message


def test_a_rate_far_too_low_learns_nothing(corpus: Path) -> None:
    [finding] = run(corpus, training={"steps": 220, "optimizer": {"lr": 1e-7}})
    assert finding.name == "uniform"
    assert "the learning rate 1e-07 is far too low" in finding.message


def test_a_rate_that_fp32_rounds_away(corpus: Path) -> None:
    rate, uniform = run(corpus, training={"steps": 220, "optimizer": {"lr": 1e-10}})
    assert (rate.name, rate.step, uniform.name) == ("rate", 20, "uniform")
    assert "too small to change the weights" in rate.message


def test_an_optimizer_left_at_its_first_rate(corpus: Path) -> None:
    [finding] = run(corpus, factor=lambda step: 1.0, used=lambda lr: 3e-3, training={"steps": 60})
    assert finding.name == "rate"
    assert "does not follow the schedule" in finding.message


def test_a_schedule_whose_floor_is_its_peak(corpus: Path) -> None:
    [finding] = run(corpus, training={"steps": 40, "schedule": {"name": "cosine", "floor": 1.0}})
    assert (finding.name, finding.step) == ("rate", 0)
    assert "'cosine' holds it at 0.003" in finding.message


def test_a_batch_of_noise_is_a_spike_that_names_its_documents(corpus: Path) -> None:
    rows = []

    def spoil(batch: Batch, step: int) -> Batch:
        if step != 120:
            return batch
        rows.extend(batch.sample_ids)
        noise = torch.randint(1, 360, batch.ids_BT.shape, generator=torch.Generator().manual_seed(1))
        return replace(batch, ids_BT=noise, labels_BT=noise.roll(-1, 1))

    spike, end = run(corpus, spoil=spoil, training={"steps": 140})
    assert (spike.name, spike.step, end.name) == ("spike", 121, "spike_end")
    plan = plan_blocks(Corpus.open(corpus).split("train"), 32)
    assert spike.facts["documents"] == Loader(plan, batch_size=8, seed=0).documents_of(tuple(rows))
    assert ".txt" in spike.facts["documents"][0]
    assert "its batch is the cause" in end.message


def test_an_update_far_too_large_is_a_spike_that_lasts(corpus: Path) -> None:
    spike, end, *_ = run(corpus, factor=lambda step: 300.0 if step == 120 else 1.0, training={"steps": 240})
    assert (spike.name, spike.step) == ("spike", 122)  # the batch after the update
    assert end.facts["updates"] > 3
    assert "its batch is the cause" not in end.message


def test_a_loss_mask_that_leaves_little(corpus: Path) -> None:
    def spoil(batch: Batch, step: int) -> Batch:
        labels_BT = batch.labels_BT.clone()
        labels_BT[:, 2:] = IGNORE_INDEX
        return replace(batch, labels_BT=labels_BT)

    [finding] = run(corpus, spoil=spoil, training={"steps": 25})
    assert (finding.name, finding.step) == ("masked", 20)
    assert "93.8%" in finding.message
    assert ".txt" in finding.facts["documents"][0]


def test_a_vocabulary_larger_than_the_tokenizer_s(corpus: Path) -> None:
    [finding] = run(corpus, architecture={"vocab_size": 1024}, training={"steps": 4})
    assert (finding.name, finding.step) == ("vocabulary", 0)
    assert "1024 ids and the tokenizer 360: 664 ids are never seen" in finding.message


def test_validation_documents_put_into_the_training_text(tmp_path: Path) -> None:
    """The training shard is written again with two validation documents in it, as no build of ours would."""
    place = make_corpus(tmp_path)
    opened = Corpus.open(place)
    train, held_out = opened.split("train"), opened.split("validation")
    path = place / "train-00000.lmw"
    old = Shard.open(path)
    names = path.with_suffix(DOCUMENTS_SUFFIX).read_text().splitlines()
    with ShardWriter(path, vocab_size=360, tokenizer_hash=train.tokenizer_hash, eos_id=train.eos_id) as writer:
        for split, numbers in ((train, range(train.num_documents)), (held_out, (1, 3))):
            for number in numbers:
                start, stop = split.doc_offsets[number : number + 2].tolist()
                writer.add(split.read(start + 1, stop), int(split.streams[0].doc_bytes[number]))
    names += [json.dumps({"path": "copied.txt", "line": number}) for number in (1, 2)]
    path.with_suffix(DOCUMENTS_SUFFIX).write_text("\n".join(names) + "\n")
    facts = json.loads((place / "corpus.json").read_text())
    new = Shard.open(path)
    facts["train"] |= {"documents": len(new.doc_bytes), "tokens": len(new.tokens)}
    (place / "corpus.json").write_text(json.dumps(facts))
    write_manifest(place)
    assert len(new.doc_bytes) == len(old.doc_bytes) + 2

    [finding] = run(place, training={"steps": 4})
    assert (finding.name, finding.step, finding.facts["documents"]) == ("leak", 0, 2)
    assert finding.facts["examples"] == [
        [held_out.document_name(1), "copied.txt:1"],
        [held_out.document_name(3), "copied.txt:2"],
    ]
    assert run(place, training={"steps": 4, "eval_every": 0}) == []  # nothing is validated
