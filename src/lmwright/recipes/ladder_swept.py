"""What the sweep of a ladder measured, read back from ladder.json: a law takes it along, so that plans go by it.

Torch-free.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from lmwright.config import convert
from lmwright.errors import ConfigError, DataError
from lmwright.recipes.ladder import RECORD
from lmwright.runs import read_json
from lmwright.scaling.fit import Fitted
from lmwright.scaling.priors import Scale
from lmwright.scaling.sweep import Trial


def with_trials(fitted: Fitted, sources: Sequence[Path]) -> Fitted:
    """Return the law with the trials of the ladders that it was fitted to. Raises DataError for a damaged record.

    sources: what was fitted: ladders, what lies in them, or what they lie in.
    """
    found = {place: trials(place) for source in sources for place in _ladders(source)}
    return replace(fitted, trials=tuple(trial for each in found.values() for trial in each))


def trials(ladder: Path) -> tuple[Trial, ...]:
    """Return the trials of a ladder that ended with a loss. Raises DataError where its record cannot be read."""
    place = ladder / RECORD
    record = read_json(place)
    try:
        return tuple(
            Trial(
                scale=convert(size["scale"], Scale, str(place)),
                learning_rate=one["learning_rate"],
                batch_tokens=one["batch_size"] * record["asked"]["context_length"],
                loss=one["loss"],
            )
            for size in record["sweep"]
            if "scale" in size  # older records do not know it
            for one in size["trials"]
            if one["loss"] is not None
        )
    except (ConfigError, KeyError, TypeError) as error:
        raise DataError(f"{place}: is damaged: {error}; put a sound copy in its place") from None


def _ladders(source: Path) -> Iterator[Path]:
    """Yield the directories of ladders: the source, the one it is part of, or those in it."""
    if source.is_dir():
        below = sorted(path.parent for path in source.glob(f"*/{RECORD}"))
        near = dict.fromkeys(path.resolve() for path in (source, *source.absolute().parents[:2], *below))
        yield from (path for path in near if (path / RECORD).is_file())
