"""config.json <-> ModelConfig, through the family that the file names. Free of torch."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from lmwright import seams
from lmwright.errors import CheckpointError, ConfigError, LmwrightError, UnsupportedError
from lmwright.model import files
from lmwright.model.config import ModelConfig

CONFIG_NAME = "config.json"


def load_config(directory: Path | str) -> ModelConfig:
    """The configuration of a Hugging Face model directory.

    Raises CheckpointError where config.json is missing, damaged or holds impossible sizes, and
    UnsupportedError, naming the field, where it asks for something that is not implemented.
    """
    path = Path(directory) / CONFIG_NAME
    if not path.parent.is_dir():
        raise CheckpointError(f"{path.parent}: is not a directory; give a Hugging Face model directory")
    if not path.exists():
        raise CheckpointError(f"{path}: is missing; a model directory holds config.json and safetensors files")
    return parse_config(files.read_object(path, files.CONFIG_LIMIT), str(path))


def parse_config(raw: dict[str, Any], where: str) -> ModelConfig:
    """As `load_config`, of the fields themselves."""
    family = family_of(raw.get("model_type"), where)
    try:
        config: ModelConfig = family.from_hf(raw, where)
    except ConfigError as error:
        message = str(error)
        raise CheckpointError(message if where in message else f"{where}: {message}") from None
    except LmwrightError:
        raise
    except (TypeError, AttributeError) as error:  # a field of a type that no check foresaw
        raise CheckpointError(f"{where}: cannot be used ({error})") from None
    return config


def dump_config(config: ModelConfig) -> dict[str, Any]:
    """The fields of config.json, as transformers 4 and 5 both open it."""
    fields: dict[str, Any] = seams.load("lmwright.model.families", config.family).to_hf(config)
    return fields


def family_of(model_type: object, where: str) -> ModuleType:
    """The family file whose MODEL_TYPE this is. UnsupportedError names the known ones."""
    known = {}
    for name in seams.names("lmwright.model.families"):
        family = seams.load("lmwright.model.families", name)
        known[family.MODEL_TYPE] = family
    if not isinstance(model_type, str) or model_type not in known:
        raise UnsupportedError(
            f"{where}: model_type is {repr(model_type)[:80]}; allowed: {', '.join(sorted(known))}"
        )
    return known[model_type]
