"""A damaged or hostile tokenizer.json: one DataError that names the file, never another exception."""

from __future__ import annotations

import json

import pytest
from data_helpers import small_tokenizer

from lmwright.errors import DataError
from lmwright.text.tokenizer import Tokenizer

BPE = {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}
SPECIAL = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
HOSTILE = {
    "empty": "",
    "no json": "{not json",
    "an array": "[]",
    "nested": "[" * 100_000,
    "no model": "{}",
    "model of no kind": '{"model": {"type": "Oracle"}}',
    "merge of nothing": json.dumps({"model": BPE | {"merges": [["a", "z"]]}}),
    "negative id": json.dumps({"model": BPE | {"vocab": {"a": -1}}}),
    "huge id": json.dumps({"model": BPE | {"vocab": {"a": 0, "b": 2**31}}}),
    "id of no integer": json.dumps({"model": BPE | {"vocab": {"a": "0"}}}),
    "empty vocabulary": json.dumps({"model": BPE | {"vocab": {}}}),
    "bad pattern": json.dumps(
        {
            "model": BPE,
            "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False},
        }
    ),
    "surrogate": '{"model": {"type": "BPE", "vocab": {"\\ud800": 0}, "merges": []}}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_malformed_tokenizer_is_one_line_that_names_the_file(tmp_path, name):
    path = tmp_path / "tokenizer.json"
    path.write_text(HOSTILE[name])
    with pytest.raises(DataError) as caught:
        Tokenizer.load(path)
    assert str(caught.value).startswith(str(path))


def test_missing_binary_and_foreign_files(tmp_path):
    with pytest.raises(DataError, match=r"cannot be read .*give a tokenizer\.json"):
        Tokenizer.load(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is not UTF-8"):
        Tokenizer.load(path)


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000])
def test_malformed_settings_are_named(tmp_path, text):
    small_tokenizer().save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(text)
    with pytest.raises(DataError, match=r"tokenizer_config\.json"):
        Tokenizer.load(tmp_path)


def test_settings_cannot_bring_code_along(tmp_path):
    """`auto_map` names Python files to run; it is not carried over into what we save."""
    small_tokenizer().save(tmp_path / "a")
    config = tmp_path / "a" / "tokenizer_config.json"
    settings = json.loads(config.read_text()) | {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}
    config.write_text(json.dumps(settings))
    Tokenizer.load(tmp_path / "a").save(tmp_path / "b")
    assert "auto_map" not in (tmp_path / "b" / "tokenizer_config.json").read_text()


def with_normalizer(normalizer: object) -> str:
    return json.dumps(json.loads(small_tokenizer()._json()) | {"normalizer": normalizer})


def test_a_pattern_without_end_is_an_error_and_no_panic(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(with_normalizer({"type": "Replace", "pattern": {"Regex": "(x+x+)+y"}, "content": ""}))
    tokenizer = Tokenizer.load(path)
    assert tokenizer.encode("harmless")
    with pytest.raises(DataError, match="cannot encode this text") as caught:
        tokenizer.encode("x" * 5000)
    assert str(caught.value).startswith(str(path))


def test_a_pattern_without_end_in_the_decoder_is_an_error(tmp_path):
    decoder = {"type": "Replace", "pattern": {"Regex": "(x+x+)+y"}, "content": ""}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"model": BPE | {"vocab": {"x" * 5000: 0}}, "decoder": decoder}))
    with pytest.raises(DataError, match="cannot decode these tokens"):
        Tokenizer.load(path).decode([0])


def test_an_unknown_word_without_a_token_is_an_error(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "[UNK]"}}))
    with pytest.raises(DataError, match="cannot encode this text"):
        Tokenizer.load(path).encode("b")


def test_devices_are_not_read(tmp_path):
    with pytest.raises(DataError, match="/dev/zero: is not a regular file"):
        Tokenizer.load("/dev/zero")
    (tmp_path / "tokenizer.json").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="is not a regular file"):
        Tokenizer.load(tmp_path)
