"""A document that spells out control tokens must not control anything, whatever tokenizer is loaded."""

from __future__ import annotations

import json

from data_helpers import small_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models

from lmwright.text.tokenizer import END_OF_TEXT, Tokenizer

PIECES = st.lists(st.sampled_from([END_OF_TEXT, "<|endof", "text|>", "<|", "a", " ", "<", "😀"]), max_size=8)
SPECIAL = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def leaking_tokenizer() -> Tokenizer:
    """A model without pre-tokenizer that looks whole texts up: `<s>` as text is in its vocabulary."""
    vocabulary = {character: index for index, character in enumerate("<s>/ab ")} | {"<s>": 7, "</s>": 8}
    backend = Backend(models.BPE(vocabulary, [], ignore_merges=True))
    backend.decoder = decoders.Fuse()
    description = json.loads(backend.to_str())
    description["added_tokens"] = [{"id": 7, "content": "<s>"} | SPECIAL, {"id": 8, "content": "</s>"} | SPECIAL]
    return Tokenizer(json.dumps(description), {}, "leaking")


LEAKING = leaking_tokenizer()


@given(PIECES)
def test_no_text_gives_the_special_id(parts):
    text = "".join(parts)
    tokenizer = small_tokenizer()
    ids = tokenizer.encode(text)
    assert not tokenizer.special_ids & set(ids)
    assert tokenizer.decode(ids) == text


@given(st.lists(st.sampled_from(["<s>", "</s>", "<", "s", ">", "/", "a", " "]), max_size=8))
def test_not_even_where_the_model_itself_knows_the_spelling(parts):
    text = "".join(parts)
    ids = LEAKING.encode(text)
    assert not {7, 8} & set(ids)
    assert LEAKING.decode(ids) == text


def test_the_leak_is_real_without_the_cut():
    assert LEAKING._plain.encode("<s>", add_special_tokens=False).ids == [7]
