"""SIGKILL while compressing and decompressing: what was there stays, and the next run clears away what is left."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from model_dirs import hf_directory

from lmwright.cli.main import run

TEXT = b"the cat sat on the mat, and the dog sat on the log.\n" * 4

PROGRAM = """
import os, signal, sys
from lmwright import runs
from lmwright.cli.main import main
from lmwright.decode.coding import streams

place, *line = sys.argv[1:]
real = {"token": streams.frequencies, "fsync": os.fsync, "replace": os.replace}
left = {"token": 60, "fsync": 0, "replace": 0}[place]

def kills(*arguments, **names):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real[place](*arguments, **names)

setattr(streams if place == "token" else os, "frequencies" if place == "token" else place, kills)
main(line)
"""


@pytest.mark.parametrize(
    ("verb", "place"),
    [("compress", "token"), ("compress", "fsync"), ("decompress", "token"), ("decompress", "replace")],
)
def test_a_kill_leaves_no_half_file(tmp_path: Path, verb: str, place: str) -> None:
    model = hf_directory(tmp_path / "model")
    work = tmp_path / "work"
    work.mkdir()
    text, packed = work / "text", work / "text.lmz"
    text.write_bytes(TEXT)
    if verb == "decompress":
        assert run(["compress", str(text), "--model", str(model)]) == 0
        text.write_bytes(b"older")
    source, out, before = (text, packed, None) if verb == "compress" else (packed, text, b"older")
    line = [verb, str(source), "--model", str(model), "--out", str(out), "--force"]
    killed = subprocess.run([sys.executable, "-c", PROGRAM, place, *line], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (out.read_bytes() if out.exists() else None) == before
    assert run(line) == 0
    assert sorted(path.name for path in work.iterdir()) == ["text", "text.lmz"]
    assert run(["decompress", str(packed), "--model", str(model), "--force"]) == 0
    assert text.read_bytes() == TEXT
