"""Measured points of a scaling law: what was trained, on how much, and the loss that came out.

A point belongs to a run: points of one run share its data order, its seed and its trunk, so they are not
independent, and what resamples points resamples runs. The convention by which parameters are counted and the
metric of the loss go with the points: a law of one is wrong for the other. So may the architecture's family and
the domain of the text, for a law of one family or domain says nothing of another, and the length of context that
the loss is of. Knows nothing of run directories.
"""

# R rows (points)

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmwright.config import closest
from lmwright.errors import ConfigError, DataError
from lmwright.scaling.flops import Convention

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Counts = NDArray[np.int64]

NUMBERS = ("parameters", "tokens", "loss", "unique_tokens", "flops")
LABELS = ("family", "domain")
MARKS = ("finished", "context")
LIMITS = {"loss": (1e-12, 1e12)}  # beyond, whatever was measured was no loss
LEAST, MOST = 1e-6, 1e60  # of the other columns
MOST_CONTEXT = 10**12 - 1
ALIASES = {
    **{"n": "parameters", "params": "parameters", "d": "tokens", "c": "flops", "u": "unique_tokens"},
    **{"val_loss": "loss", "validation_loss": "loss"},
}
LARGEST_CSV = 64 * 2**20  # bytes; a ladder has kilobytes
TRUE, FALSE = {"1", "true", "yes"}, {"0", "false", "no"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Points:
    """Columns of equal length, float64, read-only; make one with `of` or `read_csv`.

    parameters: N, counted by `convention`. tokens: D, trained on, repeats included. loss: in `metric`.
    unique_tokens: U, distinct ones among D (D itself where nothing repeats). flops: C of the training.
    run: the run, or the trunk, that each point comes from. finished: its schedule ran to its end. family: of the
    architecture; domain: of the text; empty where it is not said. context: tokens in a sequence, 0 where it is
    not said.
    """

    parameters: Floats
    tokens: Floats
    loss: Floats
    unique_tokens: Floats
    flops: Floats
    run: tuple[str, ...]
    finished: Bools
    family: tuple[str, ...]
    domain: tuple[str, ...]
    context: Counts
    convention: Convention
    metric: str

    @classmethod
    def of(
        cls,
        parameters: ArrayLike,
        tokens: ArrayLike,
        loss: ArrayLike,
        *,
        convention: Convention,
        unique_tokens: ArrayLike | None = None,
        flops: ArrayLike | None = None,
        run: Sequence[str] | None = None,
        finished: ArrayLike | None = None,
        family: Sequence[str] | None = None,
        domain: Sequence[str] | None = None,
        context: ArrayLike | None = None,
        metric: str = "nats/token",
    ) -> Points:
        """Check columns and fill in what is left out.

        Left out, unique_tokens are the tokens, flops are 6ND, each row is its own run, all are finished, and
        labels are empty, contexts 0. Raises ConfigError for columns of different lengths, numbers that cannot be
        what they should be, more unique tokens than tokens, or an unknown convention.
        """
        _check_convention(convention)
        given = {"parameters": parameters, "tokens": tokens, "loss": loss}
        columns = {name: np.atleast_1d(_floats(name, column)) for name, column in given.items()}
        rows = len(columns["parameters"])
        for name, column in columns.items():
            _check_numbers(name, column, rows)
        filled: dict[str, ArrayLike] = {
            "unique_tokens": columns["tokens"] if unique_tokens is None else unique_tokens,
            "flops": 6.0 * columns["parameters"] * columns["tokens"] if flops is None else flops,
        }
        for name, values in filled.items():
            columns[name] = np.atleast_1d(_floats(name, values))
            _check_numbers(name, columns[name], rows)
        if np.any(columns["unique_tokens"] > columns["tokens"]):
            row = int(np.argmax(columns["unique_tokens"] > columns["tokens"]))
            raise ConfigError(f"points: row {row + 1} has more unique tokens than tokens trained on")
        done: Bools = np.array(np.ones(rows) if finished is None else finished, dtype=np.bool_, ndmin=1)
        runs = tuple(f"row {row + 1}" for row in range(rows)) if run is None else tuple(run)
        if len(runs) != rows or done.shape != (rows,):
            raise ConfigError(f"points: {rows} rows, but {len(runs)} runs and {done.size} marks of finished ones")
        labels: dict[str, Any] = {"family": tuple(family or ("",) * rows), "domain": tuple(domain or ("",) * rows)}
        for name, label in labels.items():
            if len(label) != rows:
                raise ConfigError(f"points: {rows} rows, but {len(label)} values of {name}")
        everything: dict[str, Any] = {**columns, "finished": done, "context": _contexts(context, rows)}
        for column in everything.values():
            column.setflags(write=False)
        return cls(**everything, **labels, run=runs, convention=convention, metric=metric)

    def __len__(self) -> int:
        return len(self.run)

    def take(self, rows: ArrayLike) -> Points:
        """Return the rows of a mask or of indices. Raises ConfigError if none is left."""
        index = np.arange(len(self))[np.asarray(rows)]
        if not index.size:
            raise ConfigError("points: no row is left of the choice")
        columns = {name: getattr(self, name)[index] for name in (*NUMBERS, *MARKS)}
        for column in columns.values():
            column.setflags(write=False)
        words = {name: tuple(getattr(self, name)[row] for row in index) for name in ("run", *LABELS)}
        everything: dict[str, Any] = {**columns, **words}
        return replace(self, **everything)

    def log(self, name: str) -> Floats:
        """Return the natural logarithm of a column of numbers. Raises ConfigError for another name."""
        if name not in NUMBERS:
            raise ConfigError(f"points: no column {name!r}{closest(name, NUMBERS)}; allowed: {', '.join(NUMBERS)}")
        logs: Floats = np.log(getattr(self, name))
        return logs

    def logs(self, names: Iterable[str]) -> dict[str, Floats]:
        """Return the logarithms of several columns by name: what a law reads."""
        return {name: self.log(name) for name in names}

    def clusters(self) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """Return the runs in order of appearance, and each row's place among them, [R]."""
        runs = tuple(dict.fromkeys(self.run))
        place = {run: index for index, run in enumerate(runs)}
        return runs, np.array([place[run] for run in self.run], dtype=np.int64)

    def labels(self, name: str) -> tuple[str, ...]:
        """Return the different values of `family` or `domain`, in order of appearance."""
        return tuple(dict.fromkeys(getattr(self, name)))


def join(parts: Sequence[Points]) -> Points:
    """Put points below each other; runs of equal name are one run.

    Raises ConfigError where they differ in convention or metric, or there are none.
    """
    if not parts:
        raise ConfigError("points: nothing to join; give at least one set")
    for what in ("convention", "metric"):
        kinds = list(dict.fromkeys(str(getattr(part, what)) for part in parts))
        if len(kinds) > 1:
            raise ConfigError(f"points: mixed {what}s ({', '.join(kinds)}); a law holds for one, fit them apart")
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in (*NUMBERS, *MARKS)}
    words = {name: [word for part in parts for word in getattr(part, name)] for name in ("run", *LABELS)}
    given: dict[str, Any] = {**columns, **words}
    return Points.of(**given, convention=parts[0].convention, metric=parts[0].metric)


def read_csv(path: str | Path, *, convention: Convention | None = None, metric: str = "nats/token") -> Points:
    """Read points from a comma-separated file with a header.

    Columns: parameters (or N, params), tokens (D), loss (val_loss); optional: unique_tokens (U), flops (C), run,
    finished, family, domain, context, convention, metric. Other columns are refused, not skipped. `convention` and
    `metric` say what a file without such a column holds. Raises DataError with path:line for a value that is
    none, ConfigError where convention or metric is missing, mixed, or contradicts the file's.
    """
    path = Path(path)
    rows = _rows(path)
    columns: dict[str, list[str]] = {name: [row[name] for _, row in rows] for name in rows[0][1]}
    if missing := {"parameters", "tokens", "loss"} - columns.keys():
        raise DataError(f"{path}:1: no column for {', '.join(sorted(missing))}; found: {', '.join(columns)}")
    numbers = {
        name: [_number(row[name], f"{path}:{line}", name) for line, row in rows]
        for name in NUMBERS
        if name in columns
    }
    finished = [_truth(row["finished"], f"{path}:{line}") for line, row in rows] if "finished" in columns else None
    context = [_length(row["context"], f"{path}:{line}") for line, row in rows] if "context" in columns else None
    stated = _one_of(columns.get("convention"), convention, "convention", path)
    if stated is None:
        allowed = ", ".join(get_args(Convention))
        raise ConfigError(
            f"{path}: says not how parameters are counted; give --convention ({allowed}), or a column of that name"
        )
    kind = _one_of(columns.get("metric"), metric if "metric" not in columns else None, "metric", path)
    return Points.of(
        **numbers,
        run=columns.get("run") or [f"{path}:{line}" for line, _ in rows],
        finished=finished,
        family=columns.get("family"),
        domain=columns.get("domain"),
        context=context,
        convention=_convention(stated),
        metric=str(kind),
    )


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return (line, values by column name) of each row."""
    try:
        if path.stat().st_size > LARGEST_CSV:
            raise DataError(f"{path}: larger than {LARGEST_CSV >> 20} MiB; points of a law are few")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = [_name(cell, path) for cell in next(reader, [])]
        if len(set(header)) != len(header) or not header:
            raise DataError(f"{path}:1: the header is empty or names a column twice: {', '.join(header)}")
        rows = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise DataError(f"{path}: is no comma-separated table: {error}") from None
    for line, cells in rows:
        if len(cells) != len(header):
            raise DataError(f"{path}:{line}: {len(cells)} values, the header has {len(header)}")
    if not rows:
        raise DataError(f"{path}: has no row below its header")
    return [(line, dict(zip(header, (cell.strip() for cell in cells), strict=True))) for line, cells in rows]


def _name(cell: str, path: Path) -> str:
    name = cell.strip().lower()
    name = ALIASES.get(name, name)
    allowed = (*NUMBERS, "run", *MARKS, *LABELS, "convention", "metric")
    if name not in allowed:
        raise DataError(f"{path}:1: column {cell!r}{closest(name, allowed)}; allowed: {', '.join(allowed)}")
    return name


def _number(cell: str, where: str, name: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        raise DataError(f"{where}: {name} {cell!r} is no number") from None
    low, high = LIMITS.get(name, (LEAST, MOST))
    if not low <= value <= high:
        raise DataError(f"{where}: {name} {cell!r}; must be positive and finite, from {low:g} to {high:g}")
    return value


def _length(cell: str, where: str) -> int:
    if not (cell.isascii() and cell.isdigit() and len(cell) <= len(str(MOST_CONTEXT))):
        raise DataError(f"{where}: context {cell!r}; must be a whole number of tokens, 0 where it is not known")
    return int(cell)


def _truth(cell: str, where: str) -> bool:
    if cell.lower() not in TRUE | FALSE:
        raise DataError(f"{where}: finished {cell!r}; must be true or false")
    return cell.lower() in TRUE


def _one_of(cells: list[str] | None, given: str | None, what: str, path: Path) -> str | None:
    """Return the one value of a column and of the caller. Raises ConfigError where there are two."""
    found = list(dict.fromkeys([*(cells or ()), *([given] if given is not None else ())]))
    if len(found) > 1:
        raise ConfigError(f"{path}: mixed {what}s ({', '.join(found)}); a law holds for one, fit them apart")
    return found[0] if found else None


def _convention(value: str) -> Convention:
    _check_convention(value)
    return value  # type: ignore[return-value]


def _check_convention(value: str) -> None:
    allowed = get_args(Convention)
    if value not in allowed:
        raise ConfigError(f"points: convention {value!r}{closest(value, allowed)}; allowed: {', '.join(allowed)}")


def _floats(name: str, values: ArrayLike) -> Floats:
    """Return a copy. Raises ConfigError for what is no number."""
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"points: {name} {values!r:.60}; must be a number, or a list of them") from None


def _check_numbers(name: str, column: Floats, rows: int) -> None:
    if column.shape != (rows,) or not rows:
        raise ConfigError(f"points: {name} has shape {column.shape}; must be one number for each of {rows} points")
    low, high = LIMITS.get(name, (LEAST, MOST))
    wrong = ~((column >= low) & (column <= high))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ConfigError(
            f"points: {name} {column[row]} in row {row + 1}; must be positive and finite, from {low:g} to {high:g}"
        )


def _contexts(given: ArrayLike | None, rows: int) -> Counts:
    length = np.atleast_1d(np.zeros(rows) if given is None else _floats("context", given))
    if length.shape != (rows,) or not np.all(
        (length >= 0) & (length <= MOST_CONTEXT) & (length == np.floor(length))
    ):
        raise ConfigError(
            f"points: context must be a whole number of tokens for each of {rows} points, 0 where it is not known"
        )
    return length.astype(np.int64)


def logs_of(columns: Mapping[str, ArrayLike]) -> dict[str, Floats]:
    """Return the natural logarithms of plain columns, such as a planned model's; a single number fits any length.

    Raises ConfigError for numbers that are not positive and finite, or columns of different lengths.
    """
    given = {name: _floats(name, column) for name, column in columns.items()}
    rows = max((column.size for column in given.values()), default=0)
    arrays = {name: column if column.ndim else np.full(rows, column) for name, column in given.items()}
    for name, column in arrays.items():
        _check_numbers(name, column, rows)
    return {name: np.log(column) for name, column in arrays.items()}
