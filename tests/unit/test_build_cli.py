"""`lmwright tokenizer` and `lmwright data`: thin, one line for each failure, nothing heavy for help."""

from __future__ import annotations

import subprocess
import sys

import pytest
from data_helpers import sample_texts, write_jsonl

from lmwright.cli.main import run
from lmwright.text.tokenizer import Tokenizer


@pytest.fixture
def source(tmp_path):
    return write_jsonl(tmp_path / "texts.jsonl", [f"{text} {n}" for n, text in enumerate(sample_texts(200))])


def test_from_text_to_shards(source, tmp_path, capsys):
    trained, built = tmp_path / "tok", tmp_path / "built"
    train = ["tokenizer", "train", "--corpus", str(source), "--vocab-size", "300", "--out", str(trained)]
    assert run(train) == 0
    assert Tokenizer.load(trained).vocab_size == 300
    assert run(train) == 2, "it is there already"
    assert "already holds" in capsys.readouterr().err
    assert run([*train, "--force"]) == 0
    assert run(["tokenizer", "info", str(trained)]) == 0
    assert "'<|endoftext|>' (0)" in capsys.readouterr().out
    assert run(["tokenizer", "encode", str(trained), "the cat"]) == 0
    assert "' cat'" in capsys.readouterr().out
    build = ["data", "build", "--corpus", str(source), "--tokenizer", str(trained), "--out", str(built)]
    assert run(build) == 0
    assert run(["data", "info", str(built), "--verify"]) == 0
    shown = capsys.readouterr().out
    assert "bits/byte" in shown
    assert "rejected    nothing" in shown


def test_failures_are_one_line_that_names_the_place(source, tmp_path, capsys):
    with open(source, "a") as file:
        file.write("nonsense\n")
    trained = tmp_path / "tok"
    options = ["--corpus", str(source), "--vocab-size", "300", "--out", str(trained)]
    assert run(["tokenizer", "train", *options, "--strict"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"lmwright: {source}:201: is not valid JSON")
    assert error.count("\n") == 1
    assert not trained.exists()
    assert run(["tokenizer", "train", *options]) == 0
    assert "1 rejected, the first: " in capsys.readouterr().err
    assert run(["data", "info", str(tmp_path)]) == 1
    assert "is not a built corpus" in capsys.readouterr().err
    assert run(["data", "build", "--corpus", str(source), "--out", "x"]) == 2
    assert run(["tokenizer", "info", str(tmp_path / "nowhere")]) == 1
    capsys.readouterr()
    options[3] = "99999"
    assert run(["tokenizer", "train", *options, "--force"]) == 1
    assert capsys.readouterr().err.startswith(f"lmwright: {source}: too small for a vocabulary of 99999")
    options[3] = "99999999999"
    assert run(["tokenizer", "train", *options, "--force"]) == 2


def test_a_tokenizer_never_replaces_other_files(source, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    options = ["--corpus", str(source), "--vocab-size", "300", "--out", str(out), "--force"]
    assert run(["tokenizer", "train", *options]) == 2
    assert "notes.txt, which is no part of a tokenizer" in capsys.readouterr().err
    assert (out / "notes.txt").read_text() == "mine"


def test_help_and_the_rooms_import_nothing_heavy():
    script = (
        "import sys; from lmwright.cli import data, tokenizer\n"
        "assert not {'torch', 'numpy', 'pyarrow', 'tokenizers'} & set(sys.modules), 'cli'\n"
        "import lmwright.text.tokenizer, lmwright.data.build, lmwright.data.pack, lmwright.data.order\n"
        "assert not {'torch', 'pyarrow', 'tokenizers', 'transformers'} & set(sys.modules), 'rooms'"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
