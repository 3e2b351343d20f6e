"""Groups of parameters that are trained otherwise than the rest: another rate, another decay. Torch-free.

    [[training.groups]]
    match = "embed_tokens|lm_head"
    lr = 0.3
    weight_decay = 0.0

A parameter belongs to the first group whose pattern is found in its name. Knows no optimiser.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from lmwright.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class GroupConfig:
    """match: a regular expression, searched for in names of parameters. lr: a multiple of the optimiser's peak; 0
    leaves the group as it is. weight_decay: None for the optimiser's own.
    """

    match: str
    lr: Annotated[float, Meta(ge=0)] = 1.0
    weight_decay: Annotated[float, Meta(ge=0)] | None = None

    def __post_init__(self) -> None:
        try:
            re.compile(self.match)
        except re.error as error:
            raise ConfigError(f"match = {self.match!r}: is no regular expression ({error})") from None

    def rates(self, lr: float, weight_decay: float) -> tuple[float, float]:
        """Return peak rate and decay of a member, from the optimiser's peak and the decay it would have else."""
        return lr * self.lr, weight_decay if self.weight_decay is None else self.weight_decay


USUAL = GroupConfig(match="")


def assign(names: Iterable[str], groups: Sequence[GroupConfig]) -> dict[str, GroupConfig]:
    """Return the group of each parameter, `USUAL` for those that no group names.

    Raises ConfigError for a group that is left without a parameter.
    """
    found = {
        name: next((group for group in groups if re.search(group.match, name)), USUAL) for name in sorted(names)
    }
    for group in groups:
        if all(other is not group for other in found.values()):
            raise ConfigError(
                f"training.groups: match = {group.match!r} finds no parameter that an earlier group has not "
                f"taken; there are, for example, {', '.join(list(found)[:4])}"
            )
    return found
