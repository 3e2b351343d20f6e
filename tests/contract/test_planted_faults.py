"""The list of planted faults fits the source: each text to be altered stands there exactly once."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("planted_faults", ROOT / "scripts" / "planted_faults.py")
assert spec is not None
assert spec.loader is not None
planted_faults = importlib.util.module_from_spec(spec)
sys.modules["planted_faults"] = planted_faults
spec.loader.exec_module(planted_faults)


@pytest.mark.parametrize("fault", planted_faults.faults(), ids=lambda fault: fault.name)
def test_a_fault_can_be_planted(fault) -> None:
    text = (ROOT / "src" / fault.file).read_text()
    assert text.count(fault.before) == 1
    assert fault.before != fault.after
    for test in fault.tests:
        assert (ROOT / test).is_file()


def test_there_are_enough_faults_with_names_of_their_own() -> None:
    names = [fault.name for fault in planted_faults.faults()]
    assert len(names) == len(set(names)) >= 15
