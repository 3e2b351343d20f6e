"""The list of planted faults fits the source: each text to be altered stands there exactly once."""

from __future__ import annotations

import ast
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


def test_each_replacement_is_valid_python() -> None:
    for fault in planted_faults.faults():
        text = (ROOT / "src" / fault.file).read_text()
        ast.parse(text.replace(fault.before, fault.after))


@pytest.mark.parametrize(
    ("code", "output", "outcome"),
    [
        (0, "5 passed", "lives"),
        (1, "E   assert 1 == 2\nFAILED tests/x.py::test_y - assert 1 == 2\n1 failed", "caught"),
        (1, "E   NameError: name 'x' is not defined\nFAILED tests/x.py::test_y\n1 failed", "invalid: NameError"),
        (1, "stderr: ImportError: cannot import\nFAILED tests/x.py::test_y\n1 failed", "invalid: ImportError"),
        (1, "ERROR tests/x.py::test_y - RuntimeError\n1 error", "invalid: no test failed of itself (exit code 1)"),
        (2, "ERROR tests/x.py\n1 error", "invalid: no test failed of itself (exit code 2)"),
    ],
)
def test_a_catch_is_a_test_that_fails_of_itself(code: int, output: str, outcome: str) -> None:
    assert planted_faults.judge(code, output) == outcome
