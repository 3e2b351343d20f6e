"""Streaming decode: the pieces join to the whole, no piece holds a broken character, the cost is linear."""

from __future__ import annotations

from data_helpers import sample_texts, small_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from lmwright.text.stream import REPLACEMENT, ByteStream, WindowStream
from lmwright.text.tokenizer import Tokenizer, train_bpe

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def pieces(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    stream = tokenizer.stream()
    return [*(stream.push(token_id) for token_id in ids), stream.finish()]


def fallback_tokenizer() -> Tokenizer:
    """A SentencePiece-like one: words behind ▁, unknown characters as byte tokens <0xNN>."""
    vocabulary = {"<unk>": 0} | {f"<0x{byte:02X}>": byte + 1 for byte in range(256)}
    for token in ("▁", *"abcdehost", "▁a", "▁the"):
        vocabulary.setdefault(token, len(vocabulary))
    merges = [("▁", "a")]
    vocabulary.pop("▁the")
    backend = Backend(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return Tokenizer(backend.to_str(), {}, "fallback")


def wordpiece_tokenizer() -> Tokenizer:
    backend = Backend(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=["[UNK]"], show_progress=False)
    backend.train_from_iterator(sample_texts(30), trainer)
    return Tokenizer(backend.to_str(), {}, "wordpiece")


FALLBACK, WORDPIECE = fallback_tokenizer(), wordpiece_tokenizer()


@given(TEXTS)
def test_round_trip_is_exact(text):
    tokenizer = small_tokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(TEXTS)
def test_stream_of_a_text_joins_to_it_and_shows_no_broken_character(text):
    tokenizer = small_tokenizer()
    shown = pieces(tokenizer, tokenizer.encode(text))
    assert "".join(shown) == text
    assert all(REPLACEMENT not in piece for piece in shown) or REPLACEMENT in text


@given(st.lists(st.integers(-1, 310), max_size=40))
def test_stream_of_any_ids_joins_to_decode_and_to_the_library(ids):
    tokenizer = small_tokenizer()
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)
    known = [token_id for token_id in ids if 0 <= token_id < 300]
    assert tokenizer.decode(known) == tokenizer._plain.decode(known)
    assert tokenizer.decode(known, skip_special=False) == tokenizer._plain.decode(known, skip_special_tokens=False)


@given(st.text("abcdehost é猫😀", max_size=30))
def test_window_stream_joins_to_decode_for_byte_fallback(text):
    ids = FALLBACK.encode(text)
    shown = pieces(FALLBACK, ids)
    assert "".join(shown) == FALLBACK.decode(ids)
    assert all(REPLACEMENT not in piece for piece in shown)


@given(st.lists(st.integers(1, 119), max_size=30))
def test_window_stream_joins_to_decode_for_wordpiece(ids):
    ids = [token_id for token_id in ids if token_id < WORDPIECE.vocab_size]
    assert "".join(pieces(WORDPIECE, ids)) == WORDPIECE.decode(ids)


def test_an_incomplete_character_is_held_back_and_then_replaced():
    tokenizer = train_bpe([], 257)
    ids = tokenizer.encode("猫")
    stream = tokenizer.stream()
    assert isinstance(stream, ByteStream)
    assert [stream.push(token_id) for token_id in ids] == ["", "", "猫"]
    assert stream.push(ids[0]) == ""
    assert stream.finish() == REPLACEMENT


def test_window_never_decodes_more_than_a_few_ids():
    longest = 0

    def decode(ids):
        nonlocal longest
        longest = max(longest, len(ids))
        return FALLBACK.decode(ids)

    stream = WindowStream(decode)
    ids = FALLBACK.encode("the cat é猫😀 ") * 50 + [0xFF + 1] * 100  # bytes that never become a character
    for token_id in ids:
        stream.push(token_id)
    assert longest <= 20
