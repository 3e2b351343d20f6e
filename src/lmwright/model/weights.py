"""safetensors files of a model directory, read with nothing trusted.

The header of each file is checked before a byte of data is touched: its size, the JSON, types, shapes that
agree with byte ranges, ranges that tile the data without hole or overlap, and the file's length. An index may
name only files that lie in the directory itself; a link must stay in it, or in the folder of the one model where
the directory is a snapshot of the Hugging Face cache (snapshots/REV/FILE -> blobs/HASH). Formats that can run
code when opened (.bin, .pt, .pth: pickles) are refused with the remedy. Knows nothing of models.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmwright.errors import CheckpointError
from lmwright.model import files
from lmwright.model.precision import PRECISIONS

if TYPE_CHECKING:
    from torch import Tensor

SINGLE_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
HEADER_LIMIT = 1 << 23  # bytes; 40,000 tensors' worth (the format itself allows 100 MB, which parses slowly)
DIMENSION_LIMIT = 1 << 40
WIDTHS = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8,
}  # fmt: skip
WEIGHT_DTYPES = tuple(precision.stored for precision in PRECISIONS.values())
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: where it is and what its header says of it."""

    path: Path
    dtype: str
    shape: tuple[int, ...]


def list_tensors(directory: Path) -> dict[str, Entry]:
    """All tensors of a model directory, by name, without reading data. CheckpointError on any damage."""
    single, index = directory / SINGLE_NAME, directory / INDEX_NAME
    if single.exists() and index.exists():
        raise CheckpointError(
            f"{directory}: holds both {SINGLE_NAME} and {INDEX_NAME}; remove the one that is out of date"
        )
    if index.exists():
        return _list_shards(directory, index)
    if not single.exists():
        raise CheckpointError(_explain_absence(directory))
    _check_link(directory, single, str(single))
    return read_header(single)


def read_tensor(entry: Entry, name: str) -> Tensor:
    """The tensor's data. CheckpointError where the file changed or is damaged after all."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(entry.path), framework="pt") as handle:
            tensor: Tensor = handle.get_tensor(name)
    except (SafetensorError, OSError, RuntimeError, KeyError) as error:
        raise CheckpointError(f"{entry.path}: tensor {name!r} cannot be read ({error})") from None
    return tensor


def read_header(path: Path) -> dict[str, Entry]:
    """Tensors of one safetensors file. CheckpointError says which rule of the format is broken."""
    size = files.regular_size(path)
    try:
        with path.open("rb") as handle:
            prefix = handle.read(8)
            if len(prefix) < 8:
                raise CheckpointError(f"{path}: is truncated; it has {size} bytes and no header length")
            length = int.from_bytes(prefix, "little")
            if length > HEADER_LIMIT:
                raise CheckpointError(f"{path}: header of {length} bytes; at most {HEADER_LIMIT} are read")
            if 8 + length > size:
                raise CheckpointError(
                    f"{path}: is truncated; its header takes {length} bytes and the file has {size}"
                )
            header = handle.read(length)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    fields = files.parse_object(header, f"{path}: header")
    fields.pop("__metadata__", None)
    entries, ranges = {}, []
    for name, raw in fields.items():
        dtype, shape, begin, end = _parse_entry(raw, f"{path}: tensor {name[:80]!r}")
        entries[name] = Entry(path, dtype, shape)
        ranges.append((begin, end, name))
    _check_ranges(ranges, size - 8 - length, path)
    return entries


def _parse_entry(raw: Any, where: str) -> tuple[str, tuple[int, ...], int, int]:
    if not isinstance(raw, dict) or set(raw) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{where}: must have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = raw["dtype"], raw["shape"], raw["data_offsets"]
    if not isinstance(dtype, str) or dtype not in WIDTHS:
        raise CheckpointError(f"{where}: dtype {repr(dtype)[:40]} is unknown")
    if not isinstance(shape, list) or len(shape) > 8 or not all(_is_size(size) for size in shape):
        raise CheckpointError(f"{where}: shape {repr(shape)[:80]} is impossible")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(place) for place in offsets):
        raise CheckpointError(f"{where}: data_offsets {repr(offsets)[:80]} are impossible")
    begin, end = offsets
    needed = math.prod(shape) * WIDTHS[dtype]
    if end - begin != needed:
        raise CheckpointError(
            f"{where}: {dtype} of shape {shape} takes {needed} bytes, its data_offsets give {end - begin}"
        )
    return dtype, tuple(shape), begin, end


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= DIMENSION_LIMIT


def _check_ranges(ranges: list[tuple[int, int, str]], available: int, path: Path) -> None:
    place = 0
    for begin, end, name in sorted(ranges):
        if begin != place:
            kind = "overlaps another" if begin < place else "follows a hole"
            raise CheckpointError(f"{path}: tensor {name[:80]!r} {kind} (at byte {begin}, expected {place})")
        place = end
    if place != available:
        kind = "is truncated" if place > available else "has trailing bytes"
        raise CheckpointError(f"{path}: {kind}; its header describes {place} bytes of data, {available} are there")


def _list_shards(directory: Path, index: Path) -> dict[str, Entry]:
    mapping = files.read_object(index, files.INDEX_LIMIT).get("weight_map")
    if not isinstance(mapping, dict) or not mapping:
        raise CheckpointError(f"{index}: has no weight_map")
    headers: dict[str, dict[str, Entry]] = {}
    for name, file in mapping.items():
        if not isinstance(file, str) or file not in headers:
            path = _shard_path(directory, file, f"{index}: tensor {name[:80]!r}")
            headers[file] = read_header(path)
        if name not in headers[file]:
            raise CheckpointError(f"{index}: tensor {name[:80]!r} is not in {file}")
    owner: dict[str, str] = {}
    for file, header in headers.items():
        for name in header:
            if name in owner:
                raise CheckpointError(f"{index}: tensor {name[:80]!r} is in both {owner[name]} and {file}")
            if name not in mapping:
                raise CheckpointError(f"{index}: tensor {name[:80]!r} of {file} is not in the weight_map")
            owner[name] = file
    return {name: headers[file][name] for name, file in mapping.items()}


def _shard_path(directory: Path, file: object, where: str) -> Path:
    """The shard's path, if it is a plain name of a regular safetensors file in the directory itself."""
    plain = isinstance(file, str) and file.isprintable() and not set(file) & set("/\\:")
    if not isinstance(file, str) or not plain or not file.endswith(".safetensors") or file.startswith("."):
        raise CheckpointError(
            f"{where}: file {repr(file)[:80]} is refused; an index may name only .safetensors files that lie in "
            "the directory itself"
        )
    path = directory / file
    _check_link(directory, path, f"{where}: file {file[:80]!r}")
    return path


def _check_link(directory: Path, path: Path, where: str) -> None:
    """CheckpointError where the file is a link that leads out of the directory or the cached model's folder."""
    if not path.is_symlink():
        return
    try:
        home, target = directory.resolve(), path.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop, before Python 3.13
        raise CheckpointError(f"{where}: is a symbolic link that leads nowhere ({error})") from None
    cached = home.parent.name == "snapshots" and home.parent.parent.name.startswith("models--")
    if not target.is_relative_to(home.parent.parent if cached else home):
        raise CheckpointError(
            f"{where}: is a symbolic link that leads out of the directory; copy the directory with its links "
            "followed (cp -rL)"
        )


def _explain_absence(directory: Path) -> str:
    try:
        others = sorted(path.name for path in directory.iterdir() if path.suffix in _PICKLES)
    except OSError as error:
        return f"{directory}: cannot be listed ({error.strerror})"
    if others:
        return (
            f"{directory / others[0]}: is refused, since opening this format (pickle) can run code hidden in it; "
            "convert it where you trust it: transformers.AutoModelForCausalLM.from_pretrained(DIR)"
            ".save_pretrained(OUT, safe_serialization=True)"
        )
    return f"{directory}: has neither {SINGLE_NAME} nor {INDEX_NAME}"


def write(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as one safetensors file, its mode that of the umask. Raises OSError as any write does."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path.touch()
    mode = path.stat().st_mode  # safetensors would make it readable to the owner alone
    try:
        save_file(dict(tensors), str(path), {"format": "pt"})  # transformers refuses a file without this
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from None
    path.chmod(mode)
