"""The verbs compress and decompress, from the command line's words to the bytes on disk."""

from __future__ import annotations

import json
import lzma
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from model_dirs import hf_directory, run_directory

import lmwright as lm
from lmwright.cli.main import run
from lmwright.decode.coding import streams
from lmwright.decode.coding.frequencies import Frequencies, frequencies
from lmwright.errors import CheckpointError, ConfigError, DataError, RequestError, UnsupportedError
from lmwright.recipes import _binding, compress
from lmwright.recipes._compressed_file import pack, unpack
from lmwright.recipes.opening import open_model

TEXT = b"the cat sat on the mat, and the dog sat on the log.\n" * 16 + "naïve café\r\n".encode() * 5 + b"\xff\0"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a run, a model of the other family and an export of the run."""
    path = tmp_path_factory.mktemp("models")
    run_directory(path / "run")
    hf_directory(path / "gpt2", "gpt2")
    lm.load(path / "run").save(path / "export")
    return path


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text").write_bytes(TEXT)
    return tmp_path / "text"


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = run([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def entries(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("name", ["run", "gpt2"])
def test_a_file_is_compressed_and_comes_back(models: Path, text: Path, capsys, name: str) -> None:
    code, out, err = call(capsys, "compress", text, "--model", models / name)
    assert (code, err) == (0, "")
    for part in ("bits/byte", "-sum log2 p", "xz", "header"):
        assert part in out
    text.unlink()
    code, out, err = call(capsys, "decompress", f"{text}.lmz", "--model", models / name)
    assert (code, err) == (0, "")
    assert f"{len(TEXT):,} bytes" in out
    assert text.read_bytes() == TEXT
    assert entries(text.parent) == ["text", "text.lmz"]


def test_json_says_what_the_size_is_made_of(models: Path, text: Path, capsys) -> None:
    packed = text.parent / "elsewhere"
    code, out, _ = call(capsys, "compress", text, "--model", models / "run", "--out", packed, "--json")
    facts = json.loads(out)
    assert code == 0
    assert (facts["original_bytes"], facts["compressed_bytes"]) == (len(TEXT), packed.stat().st_size)
    assert facts["bits_per_byte"] == 8 * facts["compressed_bytes"] / len(TEXT)
    assert facts["bits"] == facts["text_bits"] + facts["raw_bits"]
    coded = facts["compressed_bytes"] - facts["header_bytes"]
    assert facts["coder_overhead_percent"] == 100 * (8 * coded / facts["bits"] - 1)
    assert 0 <= facts["coder_overhead_percent"] < 0.5 < facts["overhead_percent"]  # a header is much of 1 kB
    assert facts["xz_bytes"] == len(lzma.compress(TEXT, preset=6))
    code, out, _ = call(capsys, "decompress", packed, "--model", models / "run", "--out", f"{text}2", "--json")
    assert json.loads(out) == {"file": str(packed), "out": f"{text}2", "bytes": len(TEXT)}


def test_xz_is_not_run_on_a_large_file(models: Path, text: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(compress, "XZ_LIMIT", len(TEXT) - 1)
    monkeypatch.setattr(lzma, "compress", lambda *_: pytest.fail("xz was run"))
    assert "not run" in call(capsys, "compress", text, "--model", models / "run")[1]
    out = call(capsys, "compress", text, "--model", models / "run", "--force", "--json")[1]
    assert json.loads(out)["xz_bytes"] is None


def test_an_empty_file_has_no_bits_per_byte(models: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "empty").touch()
    code, out, _ = call(capsys, "compress", tmp_path / "empty", "--model", models / "run", "--json")
    facts = json.loads(out)
    assert (code, facts["bits"], facts["bits_per_byte"], facts["overhead_percent"]) == (0, 0.0, None, None)
    words = ("compress", tmp_path / "empty", "--model", models / "run", "--force")
    assert call(capsys, *words)[0] == 0
    (tmp_path / "empty").unlink()
    assert call(capsys, "decompress", tmp_path / "empty.lmz", "--model", models / "run")[0] == 0
    assert (tmp_path / "empty").read_bytes() == b""


def test_the_batch_size_changes_no_byte(models: Path, text: Path) -> None:
    opened = open_model(models / "run")
    found = {compress.compress_bytes(opened, TEXT, streams=8, batch_size=size).data for size in (1, 3, 8)}
    assert len(found) == 1
    for size in (1, 3, 8):
        assert compress.decompress_bytes(opened, *found, batch_size=size) == TEXT


def test_more_streams_than_tokens_are_as_many_as_tokens(models: Path, text: Path, capsys) -> None:
    text.write_bytes(b"the cat")
    code, out, err = call(capsys, "compress", text, "--model", models / "run", "--streams", 1000, "--json")
    assert (
        f"has {json.loads(out)['tokens']} tokens, so it is in {json.loads(out)['tokens']} streams, not 1000" in err
    )
    facts = json.loads(out)
    assert (code, facts["streams"]) == (0, facts["tokens"])
    assert call(capsys, "decompress", f"{text}.lmz", "--model", models / "run", "--force")[0] == 0
    assert text.read_bytes() == b"the cat"
    code, _, err = call(capsys, "compress", text, "--model", models / "run", "--streams", 1025, "--force")
    assert code == 2
    assert "streams = 1025: at most 1024" in err
    with pytest.raises(ConfigError, match="streams = 0"):
        compress.compress_bytes(open_model(models / "run"), TEXT, streams=0)


def test_an_export_of_the_model_reads_what_the_run_wrote(models: Path) -> None:
    assert lm.load(models / "export").decompress(lm.load(models / "run").compress(TEXT)) == TEXT


def test_another_process_with_other_threads_reads_it(models: Path, text: Path) -> None:
    packed = text.with_name("text.lmz")
    packed.write_bytes(lm.load(models / "run").compress(TEXT))
    line = [sys.executable, "-m", "lmwright", "decompress", packed, "--model", models / "run", "--force"]
    done = subprocess.run(
        line, env={**os.environ, "OMP_NUM_THREADS": "2"}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert text.read_bytes() == TEXT


def test_a_large_model_keeps_the_threads_that_it_was_computed_with(models: Path, monkeypatch) -> None:
    import torch

    model, before, used = lm.load(models / "run"), torch.get_num_threads(), []
    plain = streams.arithmetic
    monkeypatch.setattr(streams, "arithmetic", lambda threads: used.append(threads) or plain(threads))
    monkeypatch.setattr(compress, "ONE_THREAD", model.num_parameters)
    try:
        torch.set_num_threads(2)
        packed = model.compress(TEXT)
        torch.set_num_threads(1)
        assert model.decompress(packed) == TEXT
    finally:
        torch.set_num_threads(before)
    assert used == [2, 2]


def test_another_model_is_refused_by_both_names(models: Path, text: Path, capsys) -> None:
    packed = text.with_name("text.lmz")
    packed.write_bytes(lm.load(models / "run").compress(TEXT))
    ours, theirs = (_binding.model_hash(open_model(models / name).network).hex() for name in ("gpt2", "run"))
    code, out, err = call(capsys, "decompress", packed, "--model", models / "gpt2", "--force")
    assert (code, out) == (1, "")
    assert ours[:12] in err
    assert theirs[:12] in err
    with pytest.raises(CheckpointError, match="compressed with the model"):
        lm.load(models / "gpt2").decompress(packed.read_bytes())
    checkpoint = models / "run" / "checkpoints" / "step-000010"  # the same shape, older weights
    code, _, err = call(capsys, "decompress", packed, "--model", checkpoint, "--force")
    assert code == 1
    assert "compressed with the model" in err


def test_nothing_is_replaced_without_force(models: Path, text: Path, capsys) -> None:
    packed = text.with_name("text.lmz")
    packed.write_text("mine")
    code, _, err = call(capsys, "compress", text, "--model", models / "run")
    assert (code, packed.read_text()) == (2, "mine")
    assert "--force" in err
    assert call(capsys, "compress", text, "--model", models / "run", "--force")[0] == 0
    code, _, err = call(capsys, "decompress", packed, "--model", models / "run")
    assert code == 2
    assert "--force" in err
    for out, words in (
        (text, "is read"),
        (text.parent, "is a directory"),
        (text.parent / "no" / "where", "directory"),
    ):
        code, _, err = call(capsys, "compress", text, "--model", models / "run", "--out", out, "--force")
        assert (code, text.read_bytes()) == (2, TEXT)
        assert words in err
    for name in ("text", ".lmz"):
        (text.parent / name).write_bytes(packed.read_bytes())
        code, _, err = call(capsys, "decompress", text.parent / name, "--model", models / "run")
        assert code == 2
        assert "--out" in err


def test_what_is_no_file_is_refused(models: Path, tmp_path: Path, capsys) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing", "pipe", "."):
        for verb in ("compress", "decompress"):
            words = ("--model", models / "run", "--out", tmp_path / "out")
            code, out, err = call(capsys, verb, tmp_path / name, *words)
            assert (code, out, err.count("\n")) == (1, "", 1)
    assert entries(tmp_path) == ["pipe"]


def test_standard_input_has_no_place_for_a_file_beside_it(models: Path, text: Path, capsys) -> None:
    model = ("--model", str(models / "run"))
    cases = {
        ("compress", "/dev/stdin"): (2, "/dev/stdin: has no place of its own"),
        ("compress", "/dev/fd/0"): (2, "say with --out what to write"),
        ("compress", "-"): (1, "standard input is not read; give a file"),
        ("decompress", "-", "--out", "x"): (1, "standard input is not read; give a file"),
        ("compress", "/dev/stdin", "--out", "out.lmz"): (0, ""),
    }
    for words, (code, message) in cases.items():
        with text.open("rb") as file:
            done = subprocess.run(
                [sys.executable, "-m", "lmwright", *words, *model],
                stdin=file,
                cwd=text.parent,
                capture_output=True,
            )
        assert (done.returncode, message in done.stderr.decode()) == (code, True), done.stderr
        assert done.stderr.count(b"\n") == (code != 0)
    assert entries(text.parent) == ["out.lmz", "text"]
    (text.parent / "link").symlink_to(text)
    code, _, err = call(capsys, "compress", text.parent / "link", *model)
    assert (code, err) == (0, "")
    assert entries(text.parent) == ["link", "link.lmz", "out.lmz", "text"]


def test_a_file_that_would_take_days_is_refused(models: Path, text: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(compress, "MOST_BYTES", len(TEXT) - 1)
    code, _, err = call(capsys, "compress", text, "--model", models / "run")
    assert code == 1
    assert f"more than {len(TEXT) - 1} bytes" in err
    with pytest.raises(RequestError, match="cut them into parts"):
        lm.load(models / "run").compress(TEXT)


def test_a_damaged_file_writes_nothing(models: Path, text: Path, capsys) -> None:
    packed = lm.load(models / "run").compress(TEXT)
    text.unlink()
    for place in range(0, len(packed), 41):
        damaged = bytearray(packed)
        damaged[place] ^= 4
        text.with_name("text.lmz").write_bytes(damaged)
        code, out, err = call(capsys, "decompress", f"{text}.lmz", "--model", models / "run")
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert "text.lmz" in err
    assert entries(text.parent) == ["text.lmz"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": bytes(32)}, "not what was compressed"),
        ({"length": len(TEXT) + 1}, "not what was compressed"),
        ({"context": 65}, "impossible numbers for this model"),
        ({"start": 280}, "impossible numbers for this model"),
        ({"threads": 2}, "impossible numbers for this model"),  # so small a model is computed with one
        ({"start": 1}, "cannot be decompressed"),
        ({"context": 63}, "cannot be decompressed"),
    ],
)
def test_a_forged_header_gives_nothing(models: Path, change: dict[str, object], message: str) -> None:
    model = lm.load(models / "run")
    header, raw, coded = unpack(model.compress(TEXT), "it")
    with pytest.raises(DataError, match=message):
        model.decompress(pack(replace(header, **change), raw, coded))


def test_another_machine_is_told_and_still_tried(models: Path, text: Path, capsys, monkeypatch) -> None:
    packed = text.with_name("text.lmz")
    packed.write_bytes(lm.load(models / "run").compress(TEXT))
    here = _binding.machine()
    monkeypatch.setattr(_binding, "machine", lambda: bytes([here[0] ^ 1]) + here[1:])
    code, _, err = call(capsys, "decompress", packed, "--model", models / "run", "--force")
    assert (code, text.read_bytes()) == (0, TEXT)
    assert "another torch;" in err


def nudged(logits_V: np.ndarray) -> Frequencies:
    """The distribution on a machine that rounds otherwise."""
    return frequencies(logits_V * np.float32(1 + 2**-20))


def stopped_after(count: int) -> Callable[..., Frequencies]:
    calls = iter(range(count))

    def stop(logits_V: np.ndarray) -> Frequencies:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return frequencies(logits_V)

    return stop


def test_other_rounding_gives_a_message_and_no_garbage(models: Path, text: Path, capsys, monkeypatch) -> None:
    packed = text.with_name("text.lmz")
    packed.write_bytes(lm.load(models / "run").compress(TEXT))
    monkeypatch.setattr(streams, "frequencies", nudged)
    text.unlink()
    code, out, err = call(capsys, "decompress", packed, "--model", models / "run")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "other probabilities" in err
    assert "which had another" not in err
    assert entries(text.parent) == ["text.lmz"]


@pytest.mark.parametrize("verb", ["compress", "decompress"])
def test_an_interruption_leaves_nothing(models: Path, text: Path, capsys, monkeypatch, verb: str) -> None:
    data = lm.load(models / "run").compress(TEXT) if verb == "decompress" else TEXT
    text.write_bytes(data)
    monkeypatch.setattr(streams, "frequencies", stopped_after(200))
    code, out, err = call(capsys, verb, text, "--model", models / "run", "--out", f"{text}.new")
    assert (code, out, err.strip()) == (130, "", "lmwright: interrupted")
    assert entries(text.parent) == ["text"]


def test_the_python_face_says_what_it_takes(models: Path) -> None:
    model = lm.load(models / "run")
    with pytest.raises(RequestError, match="takes bytes, not str"):
        model.compress("text")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="batch_size = 0"):
        model.compress(b"text", batch_size=0)
    with pytest.raises(DataError, match="the compressed data: is no file"):
        model.decompress(b"text")
    with pytest.raises(UnsupportedError, match="bf16"):
        lm.load(models / "run", precision="bf16").compress(b"text")
    assert model.decompress(bytearray(model.compress(memoryview(b"text")))) == b"text"


def test_a_recurrent_model_is_refused_before_anything_is_computed(tmp_path: Path, text: Path, capsys) -> None:
    hf_directory(tmp_path / "lstm", "lstm")
    code, out, err = call(capsys, "compress", text, "--model", tmp_path / "lstm")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "no such arithmetic for mixer 'lstm'; take a model with attention" in err
    assert entries(text.parent) == ["lstm", "text"]


def test_a_model_without_tokenizer_or_beginning(models: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="tokenizer"):
        lm.load(hf_directory(tmp_path / "bare", with_tokenizer=False)).compress(b"text")
    hf_directory(tmp_path / "model")
    for name in ("tokenizer_config.json", "tokenizer.json"):
        path = tmp_path / "model" / name
        path.write_text(path.read_text().replace("<|endoftext|>", "<|other|>"))
    config = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    plain = {key: value for key, value in config.items() if key not in ("bos_token", "eos_token")}
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps(plain))
    (tmp_path / "model" / "MANIFEST.json").unlink()
    model = lm.load(tmp_path / "model")
    with pytest.raises(RequestError):
        model.encode("")
    assert model.decompress(model.compress(TEXT)) == TEXT


def test_the_compressed_size_follows_the_loss(models: Path) -> None:
    """A better model gives a shorter file: by the loss of the same tokens, and by nothing else."""
    import math

    found = {}
    for name in ("run", "gpt2"):
        opened = open_model(models / name)
        made = compress.compress_bytes(opened, TEXT[:800])
        found[name] = made.bits
        windows = streams.Windows(context=made.context, start=0)
        ids = np.array(opened.require_tokenizer().encode(TEXT[:800].decode()))
        scored = [row.max() for row in _log_probabilities(opened.network, ids, windows)]
        assert made.bits == pytest.approx(-math.fsum(scored) / math.log(2), rel=1e-5)
        assert 8 * (made.compressed_bytes - made.header_bytes) <= made.bits + 8 * made.streams + 0.001
    assert found["run"] != found["gpt2"]


def _log_probabilities(network: object, ids: np.ndarray, windows: streams.Windows) -> list[np.ndarray]:
    """log p of each token, by plain dense forwards in fp64 over the documented windows."""
    import torch

    from lmwright.model.context import Context

    rows, first, read = [], 0, [windows.start]
    while first < len(ids):
        stop = min(first + windows.context - len(read) + 1, len(ids))
        ids_BT = torch.tensor([[*read, *ids[first : stop - 1].tolist()]])
        with torch.no_grad():
            hidden = network(ids_BT, Context.dense(ids_BT, dtype=torch.float64))  # type: ignore[operator]
            logp = network.logits(hidden)[0].log_softmax(-1)[first - stop :]  # type: ignore[attr-defined]
        rows += [logp[at, ids[first + at]].reshape(1).numpy() for at in range(stop - first)]
        first, read = stop, ids[stop - windows.context // 2 : stop].tolist()
    return rows
