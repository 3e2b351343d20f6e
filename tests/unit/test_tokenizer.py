"""The tokenizer: training, encoding, decoding, special tokens, saving."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from data_helpers import sample_texts, small_tokenizer

from lmwright.errors import ConfigError, DataError
from lmwright.text.tokenizer import END_OF_TEXT, Tokenizer, train_bpe


def test_trained_vocabulary_has_exactly_the_asked_size_and_eos_is_zero():
    tokenizer = small_tokenizer(300)
    assert tokenizer.vocab_size == 300
    assert (tokenizer.bos_id, tokenizer.eos_id) == (0, 0)
    assert tokenizer.token(0) == END_OF_TEXT
    assert tokenizer.special_ids == {0}


def test_every_byte_is_a_token_so_that_any_text_has_ids():
    tokenizer = train_bpe([], 257)
    text = "".join(map(chr, [*range(0x300), 0x732B, 0x1F600, 0x10FFFF]))
    assert len(tokenizer.encode(text)) == len(text.encode())
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_merges_make_text_shorter():
    text = sample_texts(3)[2]
    assert len(small_tokenizer(300).encode(text)) < len(train_bpe([], 257).encode(text))


def test_digits_stand_alone():
    tokenizer = train_bpe(["1234 1234 1234 1234 ab ab ab"], 258)
    assert [tokenizer.decode([i]) for i in tokenizer.encode("1234")] == ["1", "2", "3", "4"]


def test_no_token_joins_two_words_or_a_word_and_what_follows():
    tokenizer = train_bpe(["of the of the of the; of the; of the;"] * 9, 262)
    pieces = [tokenizer.decode([i]) for i in tokenizer.encode("of the;")]
    assert pieces == ["of", " the", ";"]


def test_training_twice_in_fresh_processes_gives_the_same_bytes(tmp_path):
    script = (
        "import sys; from data_helpers import sample_texts; from pathlib import Path\n"
        "from lmwright.text.tokenizer import train_bpe\n"
        "train_bpe(sample_texts(60), 320).save(Path(sys.argv[1]))"
    )
    digests = set()
    for seed in ("1", "2"):
        out = tmp_path / seed
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[1])}
        subprocess.run([sys.executable, "-c", script, str(out)], check=True, env=environment)
        digests.add(hashlib.sha256((out / "tokenizer.json").read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize("size", [0, 256, -5])
def test_vocabulary_below_the_bytes_is_refused(size):
    with pytest.raises(ConfigError, match="at least 257"):
        train_bpe(["text"], size)


def test_a_vocabulary_beyond_that_of_any_model_is_refused_before_memory_is_reserved():
    with pytest.raises(ConfigError, match="vocab_size = 99999999999: must be at most 16777216"):
        train_bpe(["text"], 99_999_999_999)
    with pytest.raises(DataError, match="mine: too small for a vocabulary of 16777216"):
        train_bpe(["text"], 2**24, name="mine")


def test_dropout_is_switched_off():
    plain = small_tokenizer(300)
    description = json.loads(plain._json())
    description["model"]["dropout"] = 0.9
    random = Tokenizer(json.dumps(description), {}, "random")
    text = sample_texts(3)[2]
    assert {tuple(random.encode(text)) for _ in range(20)} == {tuple(plain.encode(text))}
    assert random.hash == plain.hash


def test_text_too_small_for_the_vocabulary_is_refused_with_the_size_it_allows():
    with pytest.raises(DataError, match=r"too small for a vocabulary of 5000.*only (\d+)") as caught:
        train_bpe(["ab ab ab"], 5000)
    reached = int(str(caught.value).split("only ")[1].split()[0])
    assert train_bpe(["ab ab ab"], reached).vocab_size == reached


def test_an_error_in_the_texts_is_passed_on_as_it_is():
    def texts():
        yield "some text"
        raise DataError("corpus:3: broken")

    with pytest.raises(DataError, match="corpus:3: broken"):
        train_bpe(texts(), 257)


def test_spelled_out_special_token_is_text_unless_allowed():
    tokenizer = small_tokenizer()
    assert tokenizer._leaks is None, "cutting texts is for foreign vocabularies"
    text = f"before{END_OF_TEXT}after"
    ids = tokenizer.encode(text)
    assert 0 not in ids
    assert tokenizer.decode(ids) == text
    allowed = tokenizer.encode(text, allow_special=True)
    assert allowed.count(0) == 1
    assert tokenizer.decode(allowed) == "beforeafter"
    assert tokenizer.decode(allowed, skip_special=False) == text
    assert tokenizer.encode(text) == ids, "allowing it once must not change what follows"


def test_batch_is_the_same_as_one_by_one():
    tokenizer = small_tokenizer()
    texts = [*sample_texts(20), "", END_OF_TEXT]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch([]) == []


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(DataError, match="position 2 holds half of a surrogate pair"):
        small_tokenizer().encode("ab\ud800")


def test_ids_outside_the_vocabulary_are_shown_as_replacement():
    tokenizer = small_tokenizer()
    ids = [*tokenizer.encode("cat"), 10**6, -1]
    assert tokenizer.decode(ids) == "cat\ufffd\ufffd"


def test_save_and_load_keep_hash_and_special_ids(tmp_path):
    tokenizer = small_tokenizer()
    tokenizer.save(tmp_path / "t")
    for path in (tmp_path / "t", tmp_path / "t" / "tokenizer.json"):
        loaded = Tokenizer.load(path)
        assert loaded.hash == tokenizer.hash
        assert (loaded.bos_id, loaded.eos_id, loaded.vocab_size) == (0, 0, 300)
    again = tmp_path / "again"
    Tokenizer.load(tmp_path / "t").save(again)
    assert (again / "tokenizer.json").read_bytes() == (tmp_path / "t" / "tokenizer.json").read_bytes()


def test_hash_depends_on_the_mapping_and_not_on_the_layout(tmp_path):
    tokenizer = small_tokenizer()
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    description = json.loads(path.read_text())
    path.write_text(json.dumps(description, sort_keys=True))
    assert Tokenizer.load(path).hash == tokenizer.hash
    description["model"]["merges"].pop()
    path.write_text(json.dumps(description))
    assert Tokenizer.load(path).hash != tokenizer.hash


def test_save_does_not_replace_another_tokenizer(tmp_path):
    small_tokenizer(300).save(tmp_path)
    small_tokenizer(300).save(tmp_path)
    with pytest.raises(ConfigError, match=r"tokenizer\.json: holds another tokenizer"):
        small_tokenizer(301).save(tmp_path)
    assert Tokenizer.load(tmp_path).vocab_size == 300
    small_tokenizer(301).save(tmp_path, force=True)
    assert Tokenizer.load(tmp_path).vocab_size == 301


def test_truncation_and_padding_in_the_file_are_not_obeyed(tmp_path):
    tokenizer = small_tokenizer()
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    description = json.loads(path.read_text())
    description["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    description["padding"] = {
        "strategy": {"Fixed": 64},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": END_OF_TEXT,
    }
    path.write_text(json.dumps(description))
    loaded = Tokenizer.load(path)
    text = sample_texts(3)[2]
    assert loaded.encode(text) == tokenizer.encode(text)
    assert loaded.hash == tokenizer.hash


def test_a_tokenizer_config_names_bos_and_eos(tmp_path):
    small_tokenizer().save(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings |= {"bos_token": None, "eos_token": {"content": END_OF_TEXT, "lstrip": False}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert Tokenizer.load(tmp_path).eos_id == 0
    settings["eos_token"] = "<nowhere>"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match="eos_token '<nowhere>', which is not in the vocabulary"):
        Tokenizer.load(tmp_path)
