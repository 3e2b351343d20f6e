"""Run directories and atomic writing: what is on disk is always whole.

    runs/NAME/
      config.json     the resolved configuration
      env.json        machine and library versions
      plan.json       what was predicted
      metrics.jsonl   one record a line, flushed
      checkpoints/    step-NNNNNN/, each with its MANIFEST.json
      latest, best    names of the newest checkpoint, and of the one with the lowest validation loss
      LOCK            held while a process writes here

A file is written beside its final name, synced and renamed. A directory is filled beside its final name, its
manifest written last, synced and renamed; so a directory without a true manifest was never finished. Knows
nothing of what the files mean.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import platform
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from lmwright.errors import CheckpointError, ConfigError, DataError

MANIFEST = "MANIFEST.json"
PARTIAL = ".partial-"
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
STORAGE_ERRORS = NO_ROOM | {errno.EROFS, errno.EIO, errno.EACCES, errno.ENAMETOOLONG}
# What a run directory may hold. Nothing else is ever removed, and no run is begun beside anything else.
RUN_FILES = {
    *("config.json", "env.json", "plan.json", "metrics.jsonl", "checkpoints", "latest", "best", "trackers"),
    *("corpus.json", "evaluation.json", "samples.json", "verification.json", "model"),
    *("report.html", "summary.json"),
}


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` with `data`; a reader sees the old file or the new one, never a part.

    Raises DataError if the disk refuses, `path` is a directory, or its own directory is not there.
    """
    if obstacle := _obstacle(path):
        raise DataError(f"{path}: {obstacle}")
    partial = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
        with _storage_errors(path):
            with open(partial, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
            _sync(path.parent)
    finally:
        with contextlib.suppress(OSError):  # of a name that could not be made: its own error has been told
            partial.unlink(missing_ok=True)


def _obstacle(path: Path) -> str:
    """Say why no file can lie at `path`: it is a directory, or its own is not there. Empty where one can."""
    if path.is_dir():
        return "is a directory, and a file is to be written there; move it away, or choose another place"
    if not path.parent.is_dir():
        state = "is no directory" if os.path.lexists(path.parent) else "does not exist"
        return f"cannot be written: {path.parent} {state}; make that directory, or choose another place"
    return ""


def atomic_write_text(path: Path, text: str) -> None:
    """As `atomic_write_bytes`, for UTF-8 text."""
    atomic_write_bytes(path, text.encode())


def atomic_write_json(path: Path, value: Any) -> None:
    """As `atomic_write_bytes`, for JSON; NaN and infinity are refused by ValueError, for JSON has none."""
    atomic_write_text(path, _json(value))


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises DataError that names it if it is missing or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: is not valid JSON ({error}): it is damaged or was cut off; put a sound copy in its place"
        ) from None


@contextlib.contextmanager
def atomic_directory(final: Path, kind: Kind, *, force: bool = False) -> Iterator[Path]:
    """Yield a new directory beside `final`; when the block ends well it becomes `final`, complete and synced.

    A manifest is written last. If the block raises, nothing is left. Raises ConfigError if `final` may not be
    made or replaced (see `refuse_existing`), at the start or, should it have appeared meanwhile, at the end;
    DataError if the disk refuses. With force the old directory goes only once the new one is complete.
    """
    final = Path(os.path.abspath(final))
    if final == Path.cwd():
        raise ConfigError(f"{final}: is the current directory, which is not to be replaced; name one below it")
    refuse_existing(final, kind, force=force)
    _make_directory(final.parent)
    with _storage_errors(final):
        recover(final.parent, final.name)
        partial = final.with_name(f"{PARTIAL}{os.getpid()}-{final.name}")
        partial.mkdir()
    try:
        with _storage_errors(final):
            yield partial
            write_manifest(partial)
            fsync_tree(partial)
        refuse_existing(final, kind, force=force)
        _swap(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _make_directory(path: Path) -> None:
    """Make a directory and those above it. Raises ConfigError where a file stands in the way."""
    in_the_way = next((above for above in (path, *path.parents) if os.path.lexists(above)), path)
    if os.path.lexists(in_the_way) and not in_the_way.is_dir():
        raise ConfigError(f"{path}: cannot be made, for {in_the_way} is no directory; choose another place")
    with _storage_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def _swap(partial: Path, final: Path) -> None:
    """Put `partial` in the place of `final`; a kill in between is mended by `recover`."""
    old = final.with_name(f"{PARTIAL}{os.getpid()}-old-{final.name}")
    if final.is_dir() and any(final.iterdir()):
        os.replace(final, old)
    os.rename(partial, final)  # fails, and loses nothing, if someone filled `final` this very moment
    _sync(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover(directory: Path, name: str = "") -> None:
    """Clear away what killed processes left half-made in `directory`; put back what one was about to replace.

    name: only what belongs to the entry of this name.
    """
    for path in directory.glob(f"{PARTIAL}*{glob.escape(name)}"):
        parts = re.fullmatch(re.escape(PARTIAL) + r"(\d+)-(old-)?(.+)", path.name)
        if parts is None or (name and parts[3] != name):
            continue
        # In a container every start may have the same number: what bears ours, of this name, is left over too.
        if _alive(int(parts[1])) and not (name and int(parts[1]) == os.getpid()):
            continue
        if parts[2] and not os.path.lexists(directory / parts[3]):
            os.replace(path, directory / parts[3])
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


@contextlib.contextmanager
def _storage_errors(place: Path) -> Iterator[None]:
    """Turn a full or failing disk into one line that names what was being written."""
    try:
        yield
    except OSError as error:
        if error.errno not in STORAGE_ERRORS:
            raise
        remedy = "make room" if error.errno in NO_ROOM else "mend that"
        raise DataError(
            f"{place}: cannot be written ({error.strerror}); {remedy} or choose another place; what was there "
            "before is untouched"
        ) from None


@dataclass(frozen=True)
class Kind:
    """A kind of directory that lmwright writes, and so may replace.

    name: 'a corpus', for messages. entries: a pattern that the name of each of its entries matches. marks: entries
    that show that lmwright wrote it. beside: names that may be there before it is made, and outlive it. inside:
    kinds of the directories in it.
    """

    name: str
    entries: str
    marks: tuple[str, ...]
    beside: frozenset[str] = frozenset()
    inside: Mapping[str, Kind] = field(default_factory=dict)


TOKENIZER = Kind("a tokenizer", r"(tokenizer(_config)?|MANIFEST)\.json", ("tokenizer.json", MANIFEST))
CORPUS = Kind(
    "a built corpus",
    r"(train|validation)-\d{5,}\.(lmw|docs\.jsonl)|(corpus|MANIFEST|tokenizer(_config)?)\.json|rejects\.jsonl",
    ("corpus.json", MANIFEST),
)
EXPORT = Kind(
    "an export",
    r"model[\w.-]*\.safetensors(\.index\.json)?|"
    r"((generation_|tokenizer_)?config|tokenizer|verification|MANIFEST)\.json",
    ("config.json", MANIFEST),
)
CHECKPOINT = Kind("a checkpoint", EXPORT.entries + "|state", ())  # a damaged one may lack any mark
RUN = Kind(
    "a run",
    "|".join(re.escape(name) for name in sorted(RUN_FILES)),
    ("env.json",),
    beside=frozenset({"LOCK", "QUICKSTART_LOCK", "corpus", "ladder", "law.json", "quickstart.json"}),
    inside={"model": EXPORT, "checkpoints": Kind("a run's checkpoints", r"step-\d+", ())},
)


def refuse_existing(path: Path, kind: Kind, *, force: bool) -> None:
    """Raise ConfigError unless a directory of this kind may be made at `path`.

    It may where nothing is, and with force in place of an older one of the same kind; never in place of anything
    else, which may be someone's work.
    """
    if os.path.lexists(path) and not path.is_dir():
        raise ConfigError(f"{path}: is a file, and {kind.name} is to be made there; choose another place")
    entries = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    found = {name for name in entries - kind.beside if not name.startswith(PARTIAL)}
    if foreign := sorted(name for name in found if not re.fullmatch(kind.entries, name)):
        raise ConfigError(f"{path}: holds {foreign[0]}, which is no part of {kind.name}; choose another place")
    if found and (missing := [mark for mark in kind.marks if mark not in found]):
        raise ConfigError(
            f"{path}: holds {min(found)} but no {missing[0]}, so it is not {kind.name} that lmwright wrote; "
            "choose another place"
        )
    if found and not force:
        raise ConfigError(f"{path}: already holds {kind.name}; choose another place, or replace it with --force")
    for name in found & set(kind.inside):
        refuse_existing(path / name, kind.inside[name], force=force)


def refuse_existing_file(path: Path, *, force: bool) -> None:
    """Raise ConfigError unless a file may be written where the user named it.

    It may where nothing is, and with force in place of a file; never in place of anything else.
    """
    if obstacle := _obstacle(path):
        raise ConfigError(f"{path}: {obstacle}")
    if path.is_symlink() and not path.exists():
        raise ConfigError(f"{path}: is a link to {os.readlink(path)}, which is not there; choose another place")
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path}: is there and is no file; choose another place")
    if path.exists() and not force:
        raise ConfigError(f"{path}: already exists; choose another place, or replace it with --force")


def write_manifest(directory: Path) -> None:
    """Write MANIFEST.json: size and SHA-256 of every file below `directory`."""
    files = {name: _fingerprint(directory / name) for name in _files(directory)}
    atomic_write_json(directory / MANIFEST, {"format": 1, "files": files})


def verify_manifest(directory: Path, *, leave_out: str | None = None) -> None:
    """Raise CheckpointError, naming the file, unless every file of the manifest is there and unaltered.

    leave_out: a folder in it whose files the caller will not read, and so need not be looked at.
    """
    for name, digest in check_sizes(directory, leave_out=leave_out).items():
        if _fingerprint(directory / name)["sha256"] != digest:
            raise CheckpointError(f"{directory / name}: its content differs from the manifest")


def check_sizes(directory: Path, *, leave_out: str | None = None) -> dict[str, str]:
    """Raise CheckpointError unless every file of the manifest is there in its size; return their SHA-256.

    Reads no file but the manifest. leave_out: as for `verify_manifest`.
    """
    try:
        files = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))["files"]
        entries = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()}
    except FileNotFoundError:
        raise CheckpointError(f"{directory}: has no {MANIFEST}: it was never completed") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{directory / MANIFEST}: cannot be used ({error})") from None
    digests = {}
    for name, (size, digest) in entries.items():
        if leave_out is not None and name.startswith(f"{leave_out}/"):
            continue
        path = directory / name
        there = _size(path)
        if there is None:
            raise CheckpointError(f"{path}: is in the manifest but is missing")
        if there != size:
            raise CheckpointError(f"{path}: has {there} bytes, the manifest says {size}")
        digests[name] = digest
    return digests


def _size(path: Path) -> int | None:
    """Return the bytes of a file, None where there is none: a running run may be removing it this very moment."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: a name that no file can have
        facts = os.stat(path)
        return facts.st_size if stat.S_ISREG(facts.st_mode) else None
    return None


def fsync_tree(directory: Path) -> None:
    """Force every file and directory below `directory` to disk."""
    for root, _, names in os.walk(directory):
        for name in names:
            _sync(Path(root) / name)
        _sync(Path(root))


def _files(directory: Path) -> list[str]:
    found = (path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST)
    return sorted(path.relative_to(directory).as_posix() for path in found)


def _fingerprint(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hold(path: Path) -> IO[str]:
    """Lock the file `path` until the returned file is closed or the process ends.

    Raises ConfigError that names the process that holds it, DataError if the disk refuses.
    """
    with _storage_errors(path), contextlib.ExitStack() as until_held:
        file = until_held.enter_context(open(path, "a+"))
        if not _locked(file):
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise ConfigError(
                f"{path.parent}: another process ({holder}) is writing here; wait for it or choose another place"
            )
        file.truncate(0)
        os.write(file.fileno(), f"pid {os.getpid()}\n".encode())  # no buffer, which close() would write again
        until_held.pop_all()
    return file


def _locked(file: IO[str]) -> bool:
    """Lock a file; try again for a moment, for who lists runs asks by holding the lock very shortly."""
    for wait in (0.0, 0.02, 0.1):
        time.sleep(wait)
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


class RunDirectory:
    """The directory of one run, opened by at most one writer at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None
        self._metrics: IO[str] | None = None

    @classmethod
    def create(cls, path: Path, *, config: Mapping[str, Any], force: bool = False) -> RunDirectory:
        """Make a new run at `path`, lock it and write config.json and env.json.

        force: clear away the run that is there. Raises ConfigError if there is one and force is False, if `path`
        holds what is no part of a run, or another process is writing there.
        """
        refuse_existing(path, RUN, force=force)
        text = _json(dict(config))  # before anything is cleared away: it may have no JSON
        run = cls(path)
        _make_directory(path)
        with _storage_errors(path):
            run.lock()
            run._clear()
        atomic_write_json(path / "env.json", environment())  # first: by it a run is known as one
        atomic_write_text(path / "config.json", text)
        return run

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Open the existing run at `path`, for reading. Raises DataError if there is none."""
        if not (path / "config.json").is_file():
            raise DataError(f"{path}: is not a run directory (no config.json)")
        return cls(path)

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def checkpoints(self) -> Path:
        """Directory of the run's checkpoints."""
        return self.path / "checkpoints"

    @property
    def metrics_path(self) -> Path:
        """File of the run's metrics."""
        return self.path / "metrics.jsonl"

    def config(self) -> dict[str, Any]:
        """Return the resolved configuration with which the run was started. Raises DataError if it is damaged."""
        config = read_json(self.path / "config.json")
        if not isinstance(config, dict):
            raise DataError(
                f"{self.path / 'config.json'}: is damaged: no table of settings; put it back, or start anew with "
                "--force"
            )
        return config

    def lock(self) -> None:
        """Become the run's only writer; the lock goes with the process. Raises ConfigError if it is taken."""
        with _storage_errors(self.path):
            self._lock = hold(self.path / "LOCK")
            recover(self.path)

    def close(self) -> None:
        """Release the lock and close the metrics."""
        for file in (self._metrics, self._lock):
            with contextlib.suppress(OSError):  # of a line that a full disk refused, which was told when it did
                if file is not None:
                    file.close()
        self._metrics = self._lock = None

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one record to metrics.jsonl, flushed to the operating system."""
        with _storage_errors(self.metrics_path):
            if self._metrics is None:
                self._metrics = open(self.metrics_path, "a", encoding="utf-8")  # noqa: SIM115 - held until close()
            self._metrics.write(json.dumps(record) + "\n")
            self._metrics.flush()

    def metrics(self) -> list[dict[str, Any]]:
        """Return the records of metrics.jsonl; a last line cut off by a crash is left out.

        Raises DataError, with path:line, for a line that is no record (an object with kind and step).
        """
        if not os.path.lexists(self.metrics_path):
            return []
        try:
            lines = self.metrics_path.read_bytes().splitlines()
        except OSError as error:
            raise DataError(
                f"{self.metrics_path}: cannot be read ({error.strerror}); put the run's records back, or remove it"
            ) from None
        records = []
        for number, line in enumerate(lines, start=1):
            record: Any = None
            with contextlib.suppress(ValueError, RecursionError):
                record = json.loads(line)
            if _is_record(record):
                records.append(record)
            elif record is not None or number < len(lines):
                raise DataError(f"{self.metrics_path}:{number}: is no record of a run; restore or remove it")
        return records

    def keep_metrics(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Rewrite metrics.jsonl with the records that `keep` accepts: a resumed run redoes the others."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
        kept = [json.dumps(record) + "\n" for record in self.metrics() if keep(record)]
        atomic_write_text(self.metrics_path, "".join(kept))

    def _clear(self) -> None:
        for path in self.path.iterdir():
            if path.name in RUN_FILES:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _is_record(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("kind"), str) and isinstance(value.get("step"), int)


def environment() -> dict[str, Any]:
    """Return the facts of the machine and the libraries that a result depends on; no host name, no paths."""
    from importlib import metadata

    names = ("lmwright", "torch", "numpy", "tokenizers", "safetensors")
    versions = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "versions": versions,
        "spin_count": os.environ.get("GOMP_SPINCOUNT"),
    }


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
