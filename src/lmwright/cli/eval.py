"""`lmwright eval`: the loss of a model over a whole corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from lmwright.cli._opening import average_option, device_option, open_model
from lmwright.cli._paths import CORPUS, PATH

if TYPE_CHECKING:
    from lmwright.evaluate.loss import SplitLoss
    from lmwright.recipes.evaluate import Evaluation


@click.command("eval")
@click.argument("directory", type=PATH, metavar="DIR")
@click.option(
    "--corpus", type=CORPUS, required=True, help="Directory of built shards, or text as `data build` reads it."
)
@click.option(
    "--split", type=click.Choice(["train", "validation"]), help="Of built shards.  [default: validation]"
)
@click.option(
    "--context",
    type=click.IntRange(min=1),
    help="Tokens a row; a token sees what is before it in its row (in an LSTM the rows before, too).  "
    "[default: the model's, 1024 at most]",
)
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True, help="Rows at a time.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@average_option
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
def command(
    directory: Path,
    corpus: str,
    split: str | None,
    context: int | None,
    batch_size: int,
    precision: Literal["fp32", "bf16"],
    average: bool,
    device: str,
    as_json: bool,
) -> None:
    """Measure loss, perplexity and bits per byte of the model in DIR over the whole of a corpus.

    DIR is a run (its newest checkpoint is taken), a checkpoint, or any Hugging Face directory. Bits per byte do
    not depend on the tokenizer: they compare any two models on the same text.
    """
    from lmwright.recipes.evaluate import evaluate

    found = evaluate(
        open_model(directory, device, average),
        corpus,
        split=split,
        context_length=context,
        batch_size=batch_size,
        precision=precision,
        progress=True,
    )
    click.echo(json.dumps(found.to_dict(), indent=2, allow_nan=False) if as_json else _table(found))


def _taken_along(loss: SplitLoss) -> str:
    if loss.stretches is None:
        return ""
    return f", the state taken along through {loss.stretches} stretch" + ("es" if loss.stretches > 1 else "")


def _table(found: Evaluation) -> str:
    loss = found.loss
    lines = [
        f"model         {found.model}" + (" (average of the weights)" if found.average else ""),
        f"corpus        {found.corpus}" + (f" ({found.split})" if found.split else ""),
        f"tokens        {loss.tokens:,} scored, in rows of {loss.context_length:,}{_taken_along(loss)} "
        f"({found.precision})",
        f"text          {loss.bytes:,} bytes in {loss.documents:,} documents",
        f"nats/token    {loss.nats_per_token:.4f}   = nats / tokens",
        f"perplexity    {loss.perplexity:.2f}   = exp(nats/token)",
        f"bits/byte     {loss.bits_per_byte:.4f}   = nats / ln 2 / bytes",
    ]
    if found.byte_unigram_bits_per_byte is not None and found.xz_bits_per_byte is not None:
        lines.append(f"byte unigram  {found.byte_unigram_bits_per_byte:.4f}   bits/byte of single bytes' counts")
        lines.append(f"xz            {found.xz_bits_per_byte:.4f}   bits/byte of the compressor")
    if found.rejected:
        lines.append(f"rejected      {found.rejected:,} files or lines that could not be read")
    return "\n".join(lines)
