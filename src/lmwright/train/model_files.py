"""The model of a checkpoint as files, where processes hold parts of it: each writes whole layers.

    model-00001-of-00004.safetensors ... model.safetensors.index.json

Layers are dealt out in their order, the embeddings go with the first and the last norm and head with the last, so
the files are in the model's order and no process ever has more than its layers and one tensor.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lmwright import seams
from lmwright.model import weights
from lmwright.model.checkpoint import write_description, write_model
from lmwright.model.language_model import LanguageModel
from lmwright.runs import atomic_write_json
from lmwright.train.ranks import Ranks
from lmwright.train.sharded import is_sharded, whole
from lmwright.train.slices import write_file

if TYPE_CHECKING:
    from lmwright.text.tokenizer import Tokenizer


def write(model: LanguageModel, directory: Path, tokenizer: Tokenizer | None, ranks: Ranks) -> None:
    """Write a Hugging Face directory's files into a directory that all processes see; all of them must call it."""
    if not any(is_sharded(parameter) for parameter in model.parameters()):
        with ranks.together():
            if ranks.first:
                write_model(model, directory, tokenizer)
        return
    own, owners = _own_layers(model, ranks)
    file = f"model-{owners.index(ranks.rank) + 1:05d}-of-{len(owners):05d}.safetensors" if own else ""
    with ranks.together():
        if own:
            write_file(own, directory / file)
        if ranks.first:
            write_description(model.config, "float32", directory, tokenizer)
    told = ranks.gather([file, sum(tensor.nbytes for tensor in own.values()), list(own)])
    with ranks.together():
        if ranks.first:
            mapping = {name: file for file, _, names in told for name in names}
            total = sum(size for _, size, _ in told)
            index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(mapping.items()))}
            atomic_write_json(directory / weights.INDEX_NAME, index)


def _own_layers(model: LanguageModel, ranks: Ranks) -> tuple[dict[str, Tensor], list[int]]:
    """Return the tensors that this process writes, as the family's files have them, and who writes any."""
    held, owners = dict[str, Tensor](), set[int]()
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32, "masters are fp32"
        tensor = whole(parameter.detach())  # by all processes, one at a time
        owner = _owner(name, model.config.num_layers, ranks.world_size)
        owners.add(owner)
        # What others write is kept as its shape alone: a family's file may join several of our tensors.
        held[name] = tensor.cpu() if owner == ranks.rank else torch.empty_like(tensor, device="meta")
    files = seams.load("lmwright.model.families", model.config.family).to_file(held, model.config)
    return {name: tensor.contiguous() for name, tensor in files.items() if not tensor.is_meta}, sorted(owners)


def _owner(name: str, num_layers: int, world_size: int) -> int:
    layer = re.search(r"\.layers\.(\d+)\.", name)
    if layer is None:
        return 0 if ".embed_" in name else world_size - 1
    return int(layer[1]) * world_size // num_layers
