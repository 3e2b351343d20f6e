"""What a training run would need of each device: memory at each moment of a step, and bytes sent. Torch-free.

A run is described as for `pretrain`, but needs no corpus: only the shape of the model counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmwright.config import merge, to_dict
from lmwright.errors import ConfigError
from lmwright.model import files
from lmwright.model.config import ModelConfig
from lmwright.model.config_io import parse_config
from lmwright.recipes.opening import find_config
from lmwright.recipes.pretrain_config import PretrainConfig, checked, resolve
from lmwright.recipes.pretrain_data import carries
from lmwright.scaling import memory
from lmwright.scaling.communication import Communication, communication, computation
from lmwright.scaling.flops import count_parameters
from lmwright.scaling.shapes import parameter_shapes
from lmwright.train import parts


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """The estimate of a run. moments: of a step, by name. flops: of a device in an update."""

    config: PretrainConfig
    run: memory.Run
    moments: dict[str, memory.StepMemory]
    sent: Communication
    flops: float

    @property
    def peak(self) -> str:
        """The moment that takes most."""
        return max(self.moments, key=lambda name: self.moments[name].total)

    def seconds(self, *, bandwidth: float | None, peak: float | None, utilisation: float) -> dict[str, float]:
        """Return seconds of an update: sending at `bandwidth` bytes/s, computing at a share of `peak` FLOP/s."""
        found = {}
        if bandwidth is not None:
            found["communication"] = self.sent.total / bandwidth
        if peak is not None:
            found["computation"] = self.flops / (peak * utilisation)
        return found

    def figures(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        parameters = count_parameters(self.config.architecture).total
        stage = 3 if self.run.sharded else 0
        return {
            "parameters": parameters,
            "run": {
                **dataclasses.asdict(self.run),
                "optimizer": self.config.training.optimizer["name"],
                "sequences_at_once": self.run.sequences,
            },
            "memory_bytes": {
                name: {**dataclasses.asdict(moment), "total": moment.total}
                for name, moment in self.moments.items()
            },
            "peak": self.peak,
            "peak_bytes": self.moments[self.peak].total,
            "zero_convention_bytes": memory.zero_bytes(parameters, self.run.devices, stage),
            "sent_bytes": {**dataclasses.asdict(self.sent), "total": self.sent.total},
            "flops_per_device": self.flops,
        }


def plan(config: PretrainConfig, *, devices: int) -> MemoryPlan:
    """Estimate one update of a run on `devices` devices. Raises ConfigError for a run that cannot be."""
    architecture, planned = config.architecture, run_of(config, devices=devices)
    return MemoryPlan(
        config=config,
        run=planned,
        moments=memory.moments(architecture, planned),
        sent=communication(architecture, planned),
        flops=computation(architecture, planned),
    )


def run_of(config: PretrainConfig, *, devices: int, document: int | None = None) -> memory.Run:
    """Return what of a run decides its memory; 'auto' is taken for a GPU that multiplies bf16.

    document: tokens of a typical one, where several are packed in a row.
    """
    training = config.training
    return memory.Run(
        length=config.data.context_length,
        batch_size=training.batch_size,
        micro_batch_size=training.micro_batch_size,
        precision="bf16" if training.precision == "auto" else training.precision,
        optimizer=optimizer_memory(config.architecture, training.optimizer),
        recompute=training.activation_checkpointing,
        ema=training.ema_decay is not None,
        carries=carries(config),
        document=document,
        devices=devices,
        parallel=training.parallel,
        device="cuda" if training.device == "auto" else training.device,
    )


def optimizer_memory(architecture: ModelConfig, table: Mapping[str, Any]) -> memory.OptimizerBytes:
    """Return what the optimiser that `table` describes keeps and takes for such a model, as its file tells."""
    module, settings = parts.module("optimizers", table), parts.settings("optimizers", table)
    found: memory.OptimizerBytes = module.memory(parameter_shapes(architecture), settings)
    return found


def describe(
    given: Mapping[str, Any], where: str, *, model: Path | None = None, devices: int = 1
) -> PretrainConfig:
    """Return the run that the settings describe; what they leave out is a run file's default.

    model: directory or config.json of a model, in place of settings of the architecture. Without a batch size each
    device has one sequence. Raises ConfigError that names what is missing or wrong.
    """
    data = given.get("data", {})
    if model is None and isinstance(data, Mapping) and "corpus" in data:
        return resolve(given, where)
    architecture = _settings(given, where) if model is None else _of_model(model, given)
    tree = merge(
        {
            "data": {"corpus": "none", "context_length": architecture.max_positions},
            "training": {"steps": 1, "batch_size": devices},
        },
        {**given, "architecture": to_dict(architecture)},
    )
    return checked(tree, where)


def _of_model(place: Path, given: Mapping[str, Any]) -> ModelConfig:
    if "architecture" in given:
        raise ConfigError(f"{place}: the model's own architecture is planned with; leave the settings of one away")
    if place.is_dir():
        return find_config(place)
    raw = files.read_object(place, files.CONFIG_LIMIT)
    if "model_type" not in raw and {"architecture", "training"} <= raw.keys():
        raise ConfigError(
            f"{place}: holds the settings of a run, and is no model's config.json; give the run itself: --model "
            f"{place.parent}"
        )
    return parse_config(raw, str(place))


def _settings(given: Mapping[str, Any], where: str) -> ModelConfig:
    architecture = given.get("architecture")
    if not isinstance(architecture, Mapping) or not architecture:
        raise ConfigError(
            f"{where}: no model: give --model DIR, a run file, or settings such as architecture.hidden_size=4096"
        )
    length = given["data"].get("context_length") if isinstance(given.get("data"), Mapping) else None
    filled = {"max_positions": length} if length is not None else {}
    values = {"family": "llama", **filled, **architecture}
    return ModelConfig.of_family(values.pop("family"), **values)
