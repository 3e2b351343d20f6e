"""Hugging Face model directories: config.json, safetensors (one file or shards), generation_config.json.

A directory is checked as a whole (every tensor there, none too many, each of the right shape and dtype)
from the files' headers, before any weight is read or any memory for weights is taken. No code in a
directory is ever run. Knows nothing of the trainer's state that may lie beside.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor

from lmwright import seams
from lmwright.errors import CheckpointError, UnsupportedError
from lmwright.model import precision, weights
from lmwright.model.config import ModelConfig
from lmwright.model.config_io import CONFIG_NAME, dump_config, load_config
from lmwright.model.language_model import LanguageModel
from lmwright.runs import EXPORT, atomic_directory

MAX_SHARD_BYTES = 5_000_000_000


class SavesItself(Protocol):
    """A tokenizer, as far as this module needs to know it."""

    def save(self, directory: Path) -> None:
        """Write the tokenizer's files into an existing directory."""


def load_model(
    directory: Path | str, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> LanguageModel:
    """Open a Hugging Face directory; its weights are converted to `dtype`.

    Raises CheckpointError for a missing or damaged file and for tensors that are missing, unexpected or of
    the wrong shape or dtype (all named as in the file), UnsupportedError for what is not implemented.
    """
    directory = Path(directory)
    _storable(dtype, "load_model")
    config = load_config(directory)
    family = seams.load("lmwright.model.families", config.family)
    entries = _canonical(weights.list_tensors(directory), family, directory)
    if len(entries) < config.num_layers:  # before a thousand layers are built in vain
        raise CheckpointError(
            f"{directory}: {len(entries)} tensors are too few for the {config.num_layers} layers that "
            "config.json states"
        )
    with torch.device("meta"):
        model = LanguageModel(config)
    tied = _match(entries, _expected(model, family), config, family.HEAD, directory)
    loaded: dict[str, Tensor] = {}
    for name, (entry, in_file) in entries.items():
        tensor = weights.read_tensor(entry, in_file)
        if name == tied:
            _check_tie(tensor, in_file, entries.get(family.EMBEDDING), directory)
            continue
        # One at a time, so that no more than one tensor is held twice.
        for ours, part in family.to_memory({name: tensor}, config).items():
            loaded[ours] = part.to(device=device, dtype=dtype)
    model.load_state_dict(loaded, assign=True)
    return model


def save_model(
    model: LanguageModel,
    directory: Path | str,
    tokenizer: SavesItself | None = None,
    *,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    force: bool = False,
) -> None:
    """Write a directory that transformers opens with no file added; complete or not there at all.

    dtype: what to store weights as; None keeps the parameters' own. Raises ConfigError where the directory
    holds something and force is False.
    """
    with atomic_directory(Path(directory), EXPORT, force=force) as partial:
        write_model(model, partial, tokenizer, dtype=dtype, max_shard_bytes=max_shard_bytes)


def write_model(
    model: LanguageModel,
    directory: Path,
    tokenizer: SavesItself | None = None,
    *,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """`save_model`'s files into an existing directory, for a caller that makes it atomic itself."""
    config = model.config
    own = next(model.parameters()).dtype
    dtype = own if dtype is None else dtype
    name = _storable(dtype, "save_model")
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    tensors = seams.load("lmwright.model.families", config.family).to_file(state, config)
    stored = {name: tensor.to(device="cpu", dtype=dtype).contiguous() for name, tensor in tensors.items()}
    _write_weights(stored, directory, max_shard_bytes)
    write_description(config, name, directory, tokenizer)


def write_description(config: ModelConfig, dtype: str, directory: Path, tokenizer: SavesItself | None) -> None:
    """Write all files of a model directory but its weights. dtype: of these, as config.json names it."""
    _write_json(directory / CONFIG_NAME, {**dump_config(config), "dtype": dtype, "torch_dtype": dtype})
    _write_json(
        directory / "generation_config.json",
        {"bos_token_id": config.bos_id, "eos_token_id": config.eos_id, "_from_model_config": True},
    )
    if tokenizer is not None:
        tokenizer.save(directory)


def _storable(dtype: torch.dtype, where: str) -> str:
    """config.json's name of the dtype. UnsupportedError where models are not stored in it."""
    found = precision.of_torch(dtype)
    if found is None:
        allowed = ", ".join(f"torch.{one.long}" for one in precision.PRECISIONS.values())
        raise UnsupportedError(f"{where}: dtype {dtype}; allowed: {allowed}")
    return found.long


def _canonical(
    found: Mapping[str, weights.Entry], family: ModuleType, directory: Path
) -> dict[str, tuple[weights.Entry, str]]:
    """Entries under the family's current names, each with its name in the file; buffers left out."""
    entries: dict[str, tuple[weights.Entry, str]] = {}
    for in_file, entry in found.items():
        name = family.canonical(in_file)
        if name is None:
            continue
        if name in entries:
            raise CheckpointError(
                f"{directory}: tensors {entries[name][1]!r} and {in_file[:80]!r} are the same one"
            )
        entries[name] = (entry, in_file)
    return entries


def _expected(model: LanguageModel, family: ModuleType) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the family's file for this model, which may be on the meta device."""
    tensors: dict[str, Tensor] = family.to_file(model.state_dict(), model.config)
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _match(
    entries: Mapping[str, tuple[weights.Entry, str]],
    expected: Mapping[str, tuple[int, ...]],
    config: ModelConfig,
    head: str,
    directory: Path,
) -> str | None:
    """Raise CheckpointError unless the file holds what the config says; returns a spare tied head's name."""
    missing = [name for name in expected if name not in entries]
    unexpected = [in_file for name, (_, in_file) in entries.items() if name not in expected]
    tied = head if config.tie_embeddings and head in entries else None
    if tied is not None:
        unexpected.remove(entries[head][1])
    if missing:
        hint = "; set tie_word_embeddings if the head is tied" if missing == [head] else ""
        raise CheckpointError(f"{directory}: {_some(missing)} missing from the weights{hint}")
    if unexpected:
        raise CheckpointError(
            f"{directory}: {_some(unexpected)} in the weights but not in a model of this config.json"
        )
    shapes = {**expected, head: (config.vocab_size, config.hidden_size)}
    for name, (entry, in_file) in entries.items():
        if entry.shape != shapes[name]:
            raise CheckpointError(
                f"{entry.path}: tensor {in_file!r} has shape {list(entry.shape)}; config.json gives "
                f"{list(shapes[name])}"
            )
        if entry.dtype not in weights.WEIGHT_DTYPES:
            raise CheckpointError(
                f"{entry.path}: tensor {in_file!r} has dtype {entry.dtype}; allowed: "
                f"{', '.join(weights.WEIGHT_DTYPES)} (dequantise or convert it first)"
            )
    return tied


def _check_tie(
    head: Tensor,
    in_file: str,
    table: tuple[weights.Entry, str] | None,
    directory: Path,
) -> None:
    """A tied model may store its head too, but then the same numbers."""
    assert table is not None, "the family's EMBEDDING is no tensor of its files"
    entry, embedding = table
    if not torch.equal(head, weights.read_tensor(entry, embedding)):
        raise CheckpointError(
            f"{directory}: config.json says that the head is tied to the embeddings, but {in_file!r} and "
            f"{embedding!r} differ; set tie_word_embeddings to false if the head is its own"
        )


def _write_weights(tensors: dict[str, Tensor], directory: Path, max_shard_bytes: int) -> None:
    shards: list[dict[str, Tensor]] = [{}]
    held = 0
    for name, tensor in tensors.items():
        if shards[-1] and held + tensor.nbytes > max_shard_bytes:
            shards.append({})
            held = 0
        shards[-1][name] = tensor
        held += tensor.nbytes
    if len(shards) == 1:
        weights.write(shards[0], directory / weights.SINGLE_NAME)
        return
    mapping = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        weights.write(shard, directory / file)
        mapping.update(dict.fromkeys(shard, file))
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(mapping.items()))}
    _write_json(directory / weights.INDEX_NAME, index)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _some(names: list[str]) -> str:
    """The first few names, quoted, and how many more."""
    shown = ", ".join(repr(name[:80]) for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{shown}{more} {'is' if len(names) == 1 else 'are'}"
