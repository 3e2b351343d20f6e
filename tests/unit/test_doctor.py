"""`lmwright doctor`: what is measured, what is remembered, and what is warned of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lmwright.cli import main
from lmwright.recipes import doctor, doctor_advice
from lmwright.recipes.doctor import Machine, Rate
from lmwright.recipes.doctor_advice import Moment
from lmwright.train import machine


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a cache of its own, and measures for a moment only."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(doctor, "BUDGET", 0.001)
    monkeypatch.setattr(doctor, "ROUNDS", 2)
    monkeypatch.setattr(doctor, "ARRAY_BYTES", 2**20)
    return tmp_path / "cache" / "lmwright" / "machine.json"


def rate(kind: str, what: str, threads: int, best: float, spread: float = 0.0) -> Rate:
    return Rate(kind=kind, device="cpu", what=what, threads=threads, best=best, spread=spread)


def made_up(*more: Rate, **changes: Any) -> Machine:
    """A sound machine of two threads; later rates stand in for its own."""
    rates = [
        rate("flops", "fp32 highest", 1, 50e9),
        rate("flops", "fp32 highest", 2, 95e9),
        rate("flops", "fp32 medium", 1, 100e9),
        rate("flops", "fp32 medium", 2, 190e9),
        rate("flops", "bf16", 1, 200e9),
        rate("flops", "bf16", 2, 380e9),
        rate("bandwidth", "fp32", 1, 10e9),
        rate("bandwidth", "fp32", 2, 10.2e9),
        rate("small", "fp32", 1, 10_000.0),
        rate("small", "fp32", 2, 15_000.0),
    ]
    kept = {(one.kind, one.what, one.threads): one for one in [*rates, *more]}
    values: dict[str, Any] = {
        "identity": {**doctor.identify(), "gpus": [], "limits": {"GOMP_SPINCOUNT": "10000"}},
        "abilities": ["avx2", "sse"],
        "native_bf16": True,
        "matmul": "medium",
        "matmul_errors": {"highest": 6e-7, "medium": 9e-7},
        "array_bytes": 2**28,
        "rates": [*kept.values()],
        "measured_at": 1.6e9,
    }
    return Machine(**(values | changes))


CALM = Moment(memory=16 * 2**30, disk=50 * 2**30, spin="10000", torch_first=False)


def quiet(line: str) -> None:
    raise AssertionError(line)


def known_peak(dtype: str, device: str, threads: int) -> float | None:
    known = doctor.remembered()
    return None if known is None else known.peak(dtype, device, threads)


def test_it_measures_and_remembers(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads, path = torch.get_num_threads(), torch.get_float32_matmul_precision()
    found = doctor.examine(say=quiet)
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (threads, path)
    kinds = {(one.kind, one.what) for one in found.rates}
    flops = {("flops", "fp32 highest"), ("flops", "fp32 medium"), ("flops", "bf16")}
    assert kinds == flops | {("bandwidth", "fp32"), ("small", "fp32")}
    assert all(one.best > 0 and 0 <= one.spread < 1 for one in found.rates)
    assert cache.is_file()
    monkeypatch.setattr(doctor, "measure", lambda identity: pytest.fail("measured again"))
    assert doctor.examine(say=quiet) == found


def test_again_measures_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    doctor.remember(made_up(identity=doctor.identify()), say=quiet)
    monkeypatch.setattr(doctor, "measure", lambda identity: made_up(identity=identity, measured_at=2e9))
    assert doctor.examine(say=quiet).measured_at == 1.6e9
    assert doctor.examine(again=True, say=quiet).measured_at == 2e9
    assert doctor.examine(say=quiet).measured_at == 2e9


def test_another_machine_or_other_limits_are_not_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    here = doctor.identify()
    doctor.remember(made_up(identity=here), say=quiet)
    for change in (
        {"processor": "another"},
        {"torch": "1.0"},
        {"threads": 99},
        {"limits": {"OMP_NUM_THREADS": "7"}},
    ):
        assert doctor.recall(here | change, say=quiet) is None
    monkeypatch.setenv("GOMP_SPINCOUNT", "123456")
    assert doctor.recall(doctor.identify(), say=quiet) is None
    monkeypatch.undo()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"format": 1}', '{"format": 1, "machines": 3}', "entry", "null", "\x00"],
)
def test_a_damaged_cache_is_measured_anew_with_one_line(
    cache: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    doctor.remember(made_up(identity=doctor.identify()), say=quiet)
    if content == "entry":
        whole = json.loads(cache.read_text())
        next(iter(whole["machines"].values()))["rates"] = "none"
        content = json.dumps(whole)
    cache.write_text(content)
    monkeypatch.setattr(doctor, "measure", lambda identity: made_up(identity=identity, measured_at=2e9))
    said: list[str] = []
    assert doctor.examine(say=said.append).measured_at == 2e9
    assert len(said) == 1
    assert "machine.json" in said[0]
    assert "measuring anew" in said[0]
    assert doctor.examine(say=quiet).measured_at == 2e9  # and mended


def test_a_cache_of_another_format_is_stale_and_not_damaged(cache: Path) -> None:
    doctor.remember(made_up(identity=doctor.identify()), say=quiet)
    cache.write_text(json.dumps({**json.loads(cache.read_text()), "format": 0}))
    assert doctor.recall(doctor.identify(), say=quiet) is None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    said: list[str] = []
    doctor.remember(made_up(), say=said.append)
    assert len(said) == 1
    assert "not kept" in said[0]


def test_the_newest_few_machines_are_kept(cache: Path) -> None:
    for number in range(doctor.KEPT + 3):
        doctor.remember(made_up(identity={**doctor.identify(), "cores": number}), say=quiet)
    kept = json.loads(cache.read_text())["machines"].values()
    assert [entry["identity"]["cores"] for entry in kept] == list(range(3, doctor.KEPT + 3))


def test_a_relative_cache_home_is_ignored_as_the_specification_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("relative", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert doctor.cache_path() == tmp_path / ".cache" / "lmwright" / "machine.json"


def test_a_plan_takes_the_best_peak_ever_seen_of_the_path_that_training_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert known_peak("fp32", "cpu", 2) is None
    monkeypatch.setattr(doctor, "measure", lambda identity: made_up(identity=identity))
    doctor.examine(say=quiet)
    assert known_peak("fp32", "cpu", 2) == 190e9
    assert known_peak("bf16", "cpu", 1) == 200e9
    assert known_peak("bf16", "cpu", 16) is None
    assert known_peak("bf16", "cuda", 1) is None
    later = [rate("flops", "bf16", 1, 150e9), rate("flops", "fp32 highest", 2, 99e9)]  # one slower, one faster
    monkeypatch.setattr(doctor, "measure", lambda identity: made_up(*later, identity=identity, matmul="highest"))
    assert doctor.examine(again=True, say=quiet).best("flops", "cpu", "bf16") == rate("flops", "bf16", 2, 380e9)
    assert known_peak("fp32", "cpu", 2) == 99e9
    assert known_peak("bf16", "cpu", 1) == 200e9


def test_a_disturbed_round_decides_nothing() -> None:
    rounds = iter([10.0, 1.0, 100.0, 2.0, 50.0, 4.0])
    trials = [
        doctor._Trial("small", "cpu", name, 1, "highest", lambda: next(rounds)) for name in ("first", "second")
    ]
    doctor.ROUNDS = 3  # put back by the fixture
    first, second = doctor._measured(trials)
    assert (first.best, first.spread) == (100.0, 0.5)  # the median 50 falls short by half
    assert (second.best, second.spread) == (4.0, 0.5)


@pytest.mark.parametrize(("most", "numbers"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_the_numbers_of_threads_that_are_tried(most: int, numbers: list[int]) -> None:
    assert doctor.thread_numbers(most) == numbers


def test_a_sound_machine_has_no_warning() -> None:
    assert list(doctor_advice.warnings(made_up(), CALM)) == []


@pytest.mark.parametrize(
    ("given", "moment", "says"),
    [
        (made_up, replace(CALM, spin=None), "GOMP_SPINCOUNT = unset: waiting threads spin without bound"),
        (made_up, replace(CALM, spin="INFINITE"), "GOMP_SPINCOUNT = INFINITE"),
        (made_up, replace(CALM, spin="30000000000"), "GOMP_SPINCOUNT = 30000000000"),
        (made_up, replace(CALM, spin="0"), "waiting threads sleep at once"),
        (made_up, replace(CALM, torch_first=True), "torch was imported before lmwright"),
        (made_up, replace(CALM, disk=2**30), "only 1.0 GiB of disk"),
        (made_up, replace(CALM, memory=2**30), "only 1.0 GiB of memory"),
        (lambda: made_up(native_bf16=False), CALM, "bf16 is emulated: 380 GFLOP/s beside 190 in fp32"),
        (lambda: made_up(rate("flops", "bf16", 2, 1e9), rate("flops", "bf16", 1, 1e9)), CALM, "slower than fp32"),
        (lambda: made_up(rate("small", "fp32", 2, 2_000.0)), CALM, "small products are 5.0 times faster with one"),
        (lambda: made_up(rate("flops", "fp32 medium", 2, 50e9)), CALM, "large products are 2.0 times faster"),
        (lambda: made_up(rate("bandwidth", "fp32", 1, 1e10, 0.3)), CALM, "busy: 1 of 10 rates .*1 thread, 30%"),
    ],
)
def test_a_fault_is_named_with_its_remedy(given: Any, moment: Moment, says: str) -> None:
    [warning] = doctor_advice.warnings(given(), moment)
    assert says.split(" .*")[0] in warning
    assert any(word in warning for word in ("set ", "use ", "leave ", "end ", "make room", "close "))


def test_threads_pay_where_they_win_more_than_a_little() -> None:
    said = doctor_advice.threads_that_pay(made_up())
    assert said.startswith("2 for large products, 1 for memory, 2 for small products")


def test_the_lines_say_what_was_refused() -> None:
    lines = dict(doctor_advice.describe(made_up(matmul="highest"), CALM))
    assert (
        lines["fp32 medium"]
        == "100.0 with 1 thread, 190.0 with 2 threads GFLOP/s, relative error 9.0e-07: refused"
    )
    assert lines["memory"].endswith("GB/s (triad, three arrays of 256 MiB)")
    assert lines["small product"].startswith("100 us with 1 thread, 67 us with 2 threads")
    assert lines["abilities"] == "avx2"


def test_the_verb_prints_lines_or_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "measure", lambda identity: made_up(identity=identity, native_bf16=False))
    assert main.run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert {line[:14].strip() for line in out.splitlines()} >= {"processor", "bf16", "threads", "free", "warning"}
    assert main.run(["doctor", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert set(shown) == {"machine", "now", "warnings"}
    expected = made_up(identity=doctor.identify(), native_bf16=False)
    assert shown["machine"] == asdict(replace(expected, peaks=doctor._peaks(expected, {})))
    assert any("emulated" in warning for warning in shown["warnings"])


def test_torch_that_was_imported_first_is_noticed() -> None:
    """In fresh processes, the variable unset: the order of two imports decides."""
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    ask = (
        "import pathlib; from lmwright.recipes.doctor_advice import look; print(look(pathlib.Path()).torch_first)"
    )
    for first, expected in (("torch", "True"), ("lmwright", "False")):
        found = subprocess.run(
            [sys.executable, "-c", f"import {first}; {ask}"],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert found.stdout.strip() == expected


def test_the_triad_counts_two_reads_and_a_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "least_seconds", lambda workload, **names: 0.5)
    assert machine.memory_bandwidth("cpu", size=1000) == 3 * 1000 / 0.5


def group(place: Path, limit: str, used: int, cached: int, version: int) -> None:
    place.mkdir(parents=True, exist_ok=True)
    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
             2: ("memory.max", "memory.current", "inactive_file")}[version]  # fmt: skip
    (place / names[0]).write_text(f"{limit}\n")
    (place / names[1]).write_text(f"{used}\n")
    (place / "memory.stat").write_text(f"anon 5\n{names[2]} {cached}\n")


def test_a_control_group_bounds_free_memory(tmp_path: Path) -> None:
    membership, root = tmp_path / "cgroup", tmp_path / "sys"
    membership.write_text("0::/outer/inner\n")
    group(root / "outer" / "inner", "max", 300, 50, 2)
    group(root / "outer", "1000", 400, 100, 2)
    assert list(machine._groups_free(membership, root)) == [700.0]  # 1000 - 400 + 100 of the outer
    group(root / "outer" / "inner", "500", 300, 50, 2)
    assert list(machine._groups_free(membership, root)) == [250.0, 700.0]
    membership.write_text("9:cpu:/\n4:hugetlb,memory:/box\n1:name=systemd:/\n")
    group(root / "memory" / "box", "800", 100, 0, 1)
    assert list(machine._groups_free(membership, root)) == [700.0]


def test_a_container_that_sees_its_group_as_the_root(tmp_path: Path) -> None:
    membership, root = tmp_path / "cgroup", tmp_path / "sys"
    membership.write_text("0::/docker/abcdef\n")
    group(root, "1000", 900, 0, 2)
    assert list(machine._groups_free(membership, root)) == [100.0]
    assert list(machine._groups_free(tmp_path / "none", root)) == []
