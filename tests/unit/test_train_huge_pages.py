"""Huge pages: asked for where the system offers them, for what is allocated later, and nothing more."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lmwright.train import huge_pages

PROGRAM = """
import sys
from pathlib import Path
import torch
from lmwright.train import huge_pages, machine

def advised(tensor):
    last, inside = tensor.data_ptr() + tensor.nbytes - 1, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and ":" not in first:
            start, end = (int(part, 16) for part in first.split("-"))
            inside = start <= last < end
        elif inside and first == "VmFlags:":
            return "hg" in line.split()
    raise AssertionError("no mapping holds the tensor")

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

machine.keep_memory()
assert not advised(torch.ones(2**20))
before = resident()
assert huge_pages.use(2**32)
assert huge_pages.use(2**32)
assert resident() - before < 2**26, "addresses alone are reserved"
for _ in range(3):
    machine.keep_memory()  # gives nothing back
    tensor = torch.ones(2**26)  # 256 MiB
    assert advised(tensor)
    assert tensor.sum().item() == 2**26
    del tensor
"""


@pytest.mark.skipif(not huge_pages._offered(), reason="this system offers no huge pages")
def test_what_is_allocated_later_lies_in_huge_pages_and_no_memory_is_taken_before():
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)


@pytest.mark.parametrize("setting", ["always madvise [never]\n", None])
def test_nothing_is_asked_of_a_system_that_offers_none(monkeypatch, tmp_path, setting):
    place = tmp_path / "enabled"
    if setting is not None:
        place.write_text(setting)
    monkeypatch.setattr(huge_pages, "SETTING", place)
    monkeypatch.setattr(huge_pages, "_heap", lambda: pytest.fail("asked"))
    assert huge_pages.use.__wrapped__() is False


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(huge_pages.ctypes, "CDLL", lambda *args, **rest: object())
    assert huge_pages.use.__wrapped__() is False
