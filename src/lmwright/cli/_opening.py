"""Opening a model on the command line: a checkpoint passed over is told on standard error."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lmwright.recipes.opening import Opened


def open_model(directory: Path) -> Opened:
    """Open what the user named, in fp32 on the CPU."""
    from lmwright.recipes import opening

    return opening.open_model(directory, warn=warn)


def warn(message: str) -> None:
    """Tell the user, in one line, what was passed over."""
    click.echo(f"lmwright: {message}", err=True)
