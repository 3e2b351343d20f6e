"""`lmwright quickstart`: from text to a trained, evaluated, exported model and its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lmwright.cli._paths import CORPUS, PATH


@click.command("quickstart")
@click.option(
    "--corpus", type=CORPUS, help="File, folder or glob of text; by default the Python standard library."
)
@click.option("--out", type=PATH, default=Path("runs/quickstart"), show_default=True, help="Directory.")
@click.option("--vocab-size", type=int, help="Tokens of the tokenizer.  [default: 4096]")
@click.option("--minutes", type=float, help="Of training, from which the steps follow.  [default: 2]")
@click.option("--steps", type=int, help="Optimiser updates, instead of --minutes.")
@click.option("--seed", type=int, help="Names every random stream.  [default: 0]")
@click.option("--force", is_flag=True, help="Start anew, replacing the quickstart in --out.")
def command(out: Path, force: bool, **flags: Any) -> None:
    """Train a small model on your text, foretell its loss, and write a report about it.

    Gathers text, trains a tokenizer and builds shards; trains a ladder of smaller models, fits a scaling law to
    their losses, and plans the model by it; pretrains, evaluates, samples, exports a Hugging Face directory and
    verifies it. Stopped halfway, the same command goes on where it was.
    """
    from lmwright.config import convert
    from lmwright.recipes.quickstart import Quickstart, quickstart

    asked = convert({name: value for name, value in flags.items() if value is not None}, Quickstart, "quickstart")
    page = quickstart(asked, out, force=force, say=click.echo)
    click.echo(f"\nOpen {page} in a browser, or: lmwright generate {out} --prompt 'def main('")
