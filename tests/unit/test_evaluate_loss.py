"""Loss over a split: each token of the stream but the first once, whatever the rows; bits by bytes, not tokens."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from decode_helpers import random_model, tokenizer

from lmwright.data.batch import Batch
from lmwright.data.documents import Document
from lmwright.data.pack import IGNORE_INDEX
from lmwright.data.split import TokenSplit, encode_split
from lmwright.errors import CheckpointError, ConfigError, DataError
from lmwright.evaluate import loss
from lmwright.evaluate.loss import SplitLoss, evaluate_split
from lmwright.model.config import ModelConfig
from lmwright.model.context import Context
from lmwright.model.language_model import LanguageModel
from lmwright.objectives import _cross_entropy, causal
from lmwright.text.tokenizer import Tokenizer, train_bpe
from lmwright.train.ranks import Ranks

TEXTS = ["the cat sat on the log", "naïve café — 日本語", "x", "and the dog was full of fog, so it sat " * 5]
BYTES = sum(len(text.encode()) for text in TEXTS)


def split(using: Tokenizer | None = None, texts: list[str] = TEXTS) -> TokenSplit:
    return encode_split(
        [Document(text, f"{index}.txt", None) for index, text in enumerate(texts)], using or tokenizer()
    )


def stream(tokens: TokenSplit) -> list[int]:
    return [int(token) for token in tokens.read(0, tokens.num_tokens)]


def config(vocab: int) -> ModelConfig:
    return ModelConfig.llama(
        vocab_size=vocab, hidden_size=24, num_layers=2, num_heads=3, num_kv_heads=1, head_dim=8, ffn_size=32,
        max_positions=64,
    )  # fmt: skip


def naive(model: LanguageModel, tokens: TokenSplit, length: int) -> tuple[float, int]:
    """Return (nats, tokens): one row at a time, one label at a time."""
    ids, nats, count = stream(tokens), 0.0, 0
    for start in range(0, len(ids) - 1, length):
        row = ids[start : start + length + 1]
        row_BT = torch.tensor([row[:-1]])
        with torch.no_grad():
            logits_TV = model.logits(model(row_BT, Context.dense(row_BT)))[0].double()
        for place, label in enumerate(row[1:]):
            nats -= float(logits_TV[place].log_softmax(-1)[label])
            count += 1
    return nats, count


@pytest.mark.parametrize("length", [1, 7, 32, 64])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_equals_one_row_at_a_time(length: int, batch_size: int) -> None:
    tokens = split()
    model = random_model(config(tokens.vocab_size))
    nats, count = naive(model, tokens, length)
    found = evaluate_split(model, tokens, context_length=length, batch_size=batch_size)
    assert count == found.tokens == tokens.num_tokens - 1
    assert found.nats == pytest.approx(nats, rel=1e-6)
    assert (found.bytes, found.documents, found.context_length) == (BYTES, 4, length)
    assert found.nats_per_token == pytest.approx(nats / count, rel=1e-6)
    assert found.perplexity == pytest.approx(math.exp(nats / count), rel=1e-5)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / BYTES, rel=1e-6)


def test_a_model_of_pairs_has_one_loss_for_every_cut_of_the_stream() -> None:
    """Without attention the loss is a sum over neighbours: a label lost or doubled at a row's end changes it."""
    tokens = split()
    model = random_model(config(tokens.vocab_size))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("o_proj.weight"):
                weight.zero_()
    ids = stream(tokens)
    every = torch.arange(tokens.vocab_size)[:, None]
    with torch.no_grad():
        table_VV = model.logits(model(every, Context.dense(every)))[:, 0].double().log_softmax(-1)
    pairs = itertools.pairwise(ids)
    expected = -sum(float(table_VV[before, after]) for before, after in pairs)
    for length in (1, 2, 5, 31, 64):
        found = evaluate_split(model, tokens, context_length=length, batch_size=4)
        assert found.nats == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("vocab", [257, 280])
def test_a_uniform_model_costs_log_v_a_token_and_is_spread_over_bytes(vocab: int) -> None:
    """257 is a pure byte tokenizer, 280 a BPE: fewer tokens, each dearer, over the same bytes."""
    tokens = split(
        train_bpe(["the cat sat on the mat and the dog sat on the log, so that it was full "] * 12, vocab)
    )
    model = LanguageModel(config(vocab))  # all weights zero: all logits equal
    found = evaluate_split(model, tokens, context_length=16, batch_size=4)
    assert found.nats_per_token == pytest.approx(math.log(vocab), rel=1e-6)
    assert found.perplexity == pytest.approx(vocab, rel=1e-5)
    assert found.bytes == BYTES
    assert found.bits_per_byte == pytest.approx(found.tokens * math.log2(vocab) / BYTES, rel=1e-6)
    if vocab == 257:
        assert found.tokens == BYTES + 4  # every byte, and an end of text for each document


def test_the_sums_give_the_means() -> None:
    sums = SplitLoss(nats=300 * math.log(2), tokens=100, bytes=150, documents=2, context_length=8)
    assert sums.nats_per_token == pytest.approx(3 * math.log(2))
    assert sums.perplexity == pytest.approx(8)
    assert sums.bits_per_byte == pytest.approx(2)
    assert SplitLoss(nats=1e6, tokens=1, bytes=1, documents=1, context_length=1).perplexity == math.inf


LSTM = {"hidden_size": 16, "num_layers": 2, "max_positions": 64}


def in_stretches(model: LanguageModel, tokens: TokenSplit, length: int, stretches: int) -> float:
    """Nats: each stretch, of whole rows, in one call of its own."""
    ids, rows, nats, at = stream(tokens), -(-(tokens.num_tokens - 1) // length), 0.0, 0
    for number in range(stretches):
        end = at + length * (rows // stretches + (number < rows % stretches))
        part = torch.tensor([ids[at : end + 1]])
        with torch.no_grad():
            logits = model.logits(model(part[:, :-1], Context.dense(part[:, :-1])))[0].double()
        nats += float(torch.nn.functional.cross_entropy(logits, part[0, 1:], reduction="sum"))
        at = end
    assert at >= len(ids) - 1
    return nats


@pytest.mark.parametrize("length", [1, 7, 64])
@pytest.mark.parametrize(("stretch", "stretches"), [(4096, 1), (80, 3), (40, 5), (1, 5)])
def test_a_recurrent_model_takes_its_state_along(
    length: int, stretch: int, stretches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through stretches whose number the batch size has no part in; each token once."""
    monkeypatch.setattr(loss, "STRETCH", stretch)
    monkeypatch.setattr(loss, "STRETCHES", 5)
    tokens = split(texts=[*TEXTS, TEXTS[3]])
    count = tokens.num_tokens - 1
    assert 240 <= count < 320
    stretches = min(stretches, -(-count // length))
    model = random_model(ModelConfig.of_family("lstm", vocab_size=tokens.vocab_size, **LSTM))
    expected = in_stretches(model, tokens, length, stretches)
    for batch_size in (1, 2, 4, 100):
        found = evaluate_split(model, tokens, context_length=length, batch_size=batch_size)
        assert found.nats == pytest.approx(expected, rel=1e-6)
        assert (found.tokens, found.stretches) == (count, stretches)


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
@pytest.mark.parametrize(("count", "stretches"), [(23, 5), (23, None), (5, 5), (4, 1), (32, 16)])
def test_processes_share_all_rows_and_make_as_many_calls(
    processes: int, batch_size: int, count: int, stretches: int | None
) -> None:
    walks = loss._walks(count, stretches, batch_size, processes)
    calls = [list(loss._calls(walks, Ranks(rank, processes, rank, processes))) for rank in range(processes)]
    assert len({len(mine) for mine in calls}) == 1
    read = [int(row) for mine in calls for rows, _, counts in mine if counts for row in rows]
    assert sorted(read) == list(range(count))
    assert all(len(rows) <= batch_size for mine in calls for rows, _, _ in mine)
    for mine in calls:
        for (before, _, _), (rows, goes_on, counts) in itertools.pairwise(mine):
            if goes_on and counts:
                assert stretches is not None
                assert (rows == before[: len(rows)] + 1).all()
    if stretches is not None:
        begun = [rows for mine in calls for rows, goes_on, counts in mine if counts and not goes_on]
        assert sum(map(len, begun)) == stretches


def test_small_slices_of_logits_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = split()
    model = random_model(config(tokens.vocab_size))
    whole = evaluate_split(model, tokens, context_length=32, batch_size=4)
    monkeypatch.setitem(_cross_entropy.LOGITS_AT_ONCE, "cpu", 5 * tokens.vocab_size)
    monkeypatch.setitem(_cross_entropy.GROUP, "cpu", 2 * tokens.vocab_size)
    assert evaluate_split(model, tokens, context_length=32, batch_size=4).nats == pytest.approx(
        whole.nats, rel=1e-6
    )


def test_no_more_logits_than_a_chunk_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(config(280))
    asked: list[int] = []
    logits = model.logits
    monkeypatch.setattr(
        model, "logits", lambda hidden, ctx: (asked.append(hidden.numel() // 24), logits(hidden, ctx))[1]
    )
    ids_BT = torch.arange(48).view(3, 16)
    labels_BT = ids_BT + 1
    labels_BT[1, 3:6] = IGNORE_INDEX
    batch = Batch(ids_BT=ids_BT, labels_BT=labels_BT)
    with torch.no_grad():
        whole = causal.loss(model, batch, Context.dense(ids_BT)).sum.item()
    assert asked == [45], "what is not scored costs nothing"
    asked.clear()
    monkeypatch.setitem(_cross_entropy.LOGITS_AT_ONCE, "cpu", 10 * 280 + 279)
    with torch.no_grad():
        evaluated = causal.loss(model, batch, Context.dense(ids_BT)).sum.item()
    assert asked == [10, 10, 10, 10, 5]
    assert evaluated == pytest.approx(whole, rel=1e-6)


def test_a_context_longer_than_the_text_is_cut_to_it() -> None:
    tokens = split(texts=["the cat"])
    found = evaluate_split(random_model(config(tokens.vocab_size)), tokens, context_length=64, batch_size=2)
    assert found.context_length == found.tokens == tokens.num_tokens - 1


def test_bf16_is_near_fp32() -> None:
    tokens = split()
    model = random_model(config(tokens.vocab_size))
    full = evaluate_split(model, tokens, context_length=32, batch_size=4)
    half = evaluate_split(model, tokens, context_length=32, batch_size=4, dtype=torch.bfloat16)
    assert half.nats == pytest.approx(full.nats, rel=0.02)
    assert half.nats != full.nats


def test_refusals() -> None:
    tokens = split()
    model = random_model(config(tokens.vocab_size))
    for length in (0, 65):
        with pytest.raises(ConfigError, match=f"context length {length}: must be from 1 to 64"):
            evaluate_split(model, tokens, context_length=length, batch_size=1)
    with pytest.raises(ConfigError, match="batch size 0"):
        evaluate_split(model, tokens, context_length=8, batch_size=0)
    with pytest.raises(DataError, match="has a vocabulary of 280, the model one of 100"):
        evaluate_split(random_model(config(100)), tokens, context_length=8, batch_size=1)
    with pytest.raises(DataError, match="holds no text"):
        evaluate_split(model, split(texts=["", ""]), context_length=1, batch_size=1)
    with torch.no_grad():
        model.model.embed_tokens.weight[5, 0] = np.nan
        model.model.norm.weight[0] = np.nan
    with pytest.raises(CheckpointError, match="tokens 0 to 16 is nan"):
        evaluate_split(model, tokens, context_length=8, batch_size=2)


def test_shards_on_disk_and_text_in_memory_have_one_loss(tmp_path: Path) -> None:
    from lmwright.data.build import Corpus, build_corpus

    (tmp_path / "text").mkdir()
    for index in range(12):
        (tmp_path / "text" / f"{index:02}.txt").write_text(f"{TEXTS[index % 4]} {index}")
    build_corpus(tmp_path / "text", tokenizer(), tmp_path / "built", validation_fraction=0.5)
    held_out = Corpus.open(tmp_path / "built").split("validation")
    names = [held_out.document_name(number).split(":")[0] for number in range(held_out.num_documents)]
    again = split(texts=[Path(name).read_text() for name in names])
    model = random_model(config(tokenizer().vocab_size))
    found = [evaluate_split(model, one, context_length=16, batch_size=3) for one in (held_out, again)]
    assert found[0] == found[1]
