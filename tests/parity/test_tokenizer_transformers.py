"""transformers' AutoTokenizer opens what `Tokenizer.save` writes, and gives the same ids and text."""

from __future__ import annotations

import json

import pytest
from data_helpers import sample_texts, small_tokenizer

from lmwright.text.tokenizer import END_OF_TEXT, Tokenizer

transformers = pytest.importorskip("transformers")

TEXTS = [
    *sample_texts(20),
    "",
    "  two  spaces\n\n\ttabs\r\nends ",
    "def f(x):\n    return x ** 2  # 12345\n",
    "naïve 猫 😀 \u0301 \ufffd",
]


def test_auto_tokenizer_gives_the_same_ids_and_text(tmp_path):
    ours = small_tokenizer()
    ours.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        assert theirs(text)["input_ids"] == ours.encode(text)
        assert theirs.decode(ours.encode(text)) == text
    assert (theirs.bos_token_id, theirs.eos_token_id) == (ours.bos_id, ours.eos_id)
    assert len(theirs) == ours.vocab_size


def test_spelled_out_special_tokens_agree_in_both_readings(tmp_path):
    ours = small_tokenizer()
    ours.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = f"a{END_OF_TEXT} b"
    assert theirs(text)["input_ids"] == ours.encode(text, allow_special=True)
    assert theirs(text, split_special_tokens=True)["input_ids"] == ours.encode(text)


def test_what_transformers_saves_loads_and_encodes_the_same(tmp_path):
    small_tokenizer().save(tmp_path / "ours")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    loaded = Tokenizer.load(tmp_path / "theirs")
    assert [loaded.encode(text) for text in TEXTS] == [small_tokenizer().encode(text) for text in TEXTS]
    assert (loaded.bos_id, loaded.eos_id) == (0, 0)


def test_a_llama_like_tokenizer_survives_with_its_special_tokens(tmp_path):
    """A template that adds bos is kept in the file, but our encode adds nothing."""
    small_tokenizer().save(tmp_path / "base")
    description = json.loads((tmp_path / "base" / "tokenizer.json").read_text())
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    description["added_tokens"] += [
        {"id": 300, "content": "<s>"} | special,
        {"id": 301, "content": "</s>"} | special,
    ]
    description["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [300], "tokens": ["<s>"]}},
    }
    ours = Tokenizer(json.dumps(description), {"bos_token": "<s>", "eos_token": "</s>"}, "test")
    assert (ours.bos_id, ours.eos_id, ours.vocab_size) == (300, 301, 302)
    ours.save(tmp_path / "saved")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    for text in TEXTS:
        assert theirs(text, add_special_tokens=False)["input_ids"] == ours.encode(text)
        assert theirs(text)["input_ids"] == [300, *ours.encode(text)]
    assert (theirs.bos_token_id, theirs.eos_token_id) == (300, 301)
