"""Bits a byte compare only if no tokenizer loses text: what is refused, what is let pass, what is sampled."""

from __future__ import annotations

import json

import pytest
from data_helpers import small_tokenizer

from lmwright.data.documents import Document
from lmwright.data.lossless import check_lossless, in_sample
from lmwright.data.split import encode_split
from lmwright.errors import DataError
from lmwright.text.tokenizer import Tokenizer

TEXTS = ["The Cat", " two  spaces ", "tab\tand\r\nline\n", "na\u00efve \u732b \U0001f600", "</s> <|endoftext|>"]


def changed(**parts: object) -> Tokenizer:
    """Return the small byte-level tokenizer with other parts of its description."""
    return Tokenizer(json.dumps(json.loads(small_tokenizer()._json()) | parts), {}, "changed")


def sentencepiece() -> Tokenizer:
    """Return a tokenizer made as Llama 2's: a space before the text, U+2581 for spaces, bytes as a last resort."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *"abcTheCat"]
    vocab = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    parts = {
        "added_tokens": [{"id": vocab[name], "content": name, **special} for name in ("<unk>", "<s>", "</s>")],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "\u2581"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
            ],
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": True, "unk_token": "<unk>"},
    }
    return Tokenizer(json.dumps({"version": "1.0", **parts}), {}, "sentencepiece")


KEPT = {
    "byte level": small_tokenizer,
    "canonical Unicode": lambda: changed(normalizer={"type": "NFC"}),
    "a space before": lambda: changed(
        pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    ),
    "as Llama 2": sentencepiece,
}
LOSING = {
    "lower case": ({"type": "Lowercase"}, "'The Cat' comes back as 'the cat'"),
    "strip": ({"type": "Strip", "strip_left": True, "strip_right": True}, "' ' comes back as ''"),
    "compatibility": ({"type": "NFKC"}, "comes back as"),
    "words left out": ({"type": "Replace", "pattern": {"String": "Cat"}, "content": ""}, "'Cat' comes back as ''"),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_tokenizer_that_keeps_text_passes(name):
    tokenizer = KEPT[name]()
    for text in [*TEXTS, "a\u0301", "\u2581 sign"]:
        check_lossless(Document(text, "a.txt"), tokenizer.encode(text), tokenizer)


@pytest.mark.parametrize("name", LOSING)
def test_a_tokenizer_that_loses_text_is_refused_with_the_place(name):
    normalizer, message = LOSING[name]
    documents = [Document(text, "a.txt", line) for line, text in enumerate([*TEXTS, "\ufb01ne"], 1)]
    with pytest.raises(DataError, match=r"^a\.txt:\d: the tokenizer loses text: ") as caught:
        encode_split(documents, changed(normalizer=normalizer))
    assert message in str(caught.value)


def test_unknown_words_are_a_loss():
    model = {"type": "WordLevel", "vocab": {"<unk>": 0, "a": 1, "<|endoftext|>": 2}, "unk_token": "<unk>"}
    tokenizer = Tokenizer(json.dumps({"model": model}), {"eos_token": "<|endoftext|>"}, "words")
    assert encode_split([Document("a", "x")], tokenizer).num_documents == 1
    with pytest.raises(DataError, match="'b' comes back as '<unk>'"):
        encode_split([Document("a", "x"), Document("b", "x")], tokenizer)


@pytest.mark.parametrize("place", [0, 63, 64, 100, 1000, 1001])
def test_the_first_64_and_every_100th_are_looked_at(place):
    lowering = changed(normalizer={"type": "Lowercase"})
    documents = [Document("Aa" if number == place else "aa", "x", number) for number in range(1101)]
    assert in_sample(place) == (place < 64 or place % 100 == 0)
    if not in_sample(place):
        assert encode_split(documents, lowering).num_documents == 1101
        return
    with pytest.raises(DataError, match=f"x:{place}: the tokenizer loses text"):
        encode_split(documents, lowering)
