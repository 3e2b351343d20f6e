"""`lmwright plan`: what a run will need, worked out before anything is run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmwright.cli._paths import PATH
from lmwright.cli._settings import gather

if TYPE_CHECKING:
    from lmwright.recipes.budget import BudgetPlan
    from lmwright.recipes.memory_plan import MemoryPlan

PLACES: dict[str, tuple[str, ...]] = {
    "context": ("data", "context_length"),
    "batch_size": ("training", "batch_size"),
    "micro_batch_size": ("training", "micro_batch_size"),
    "precision": ("training", "precision"),
    "device": ("training", "device"),
    "parallel": ("training", "parallel"),
    "activation_checkpointing": ("training", "activation_checkpointing"),
}
GIGA = 1e9
UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@click.group(invoke_without_command=True)
@click.option("--budget", help="What may be spent: 10m, 1e18 (FLOPs) or '8xH100 3d'.")
@click.option("--corpus", type=PATH, help="Directory of a built corpus.")
@click.option("--law", type=PATH, help="JSON of `lmwright fit --out`; without it a published law.")
@click.option(
    "--inference-tokens", type=click.FloatRange(min=0), help="Tokens that the finished model will read, from the "
    "same budget.",
)  # fmt: skip
@click.option("--family", help="Of the model; llama where it is not said.")
@click.option("--context", type=click.IntRange(min=2), help="Tokens in a sequence; by default follows the budget.")
@click.option(
    "--measure", is_flag=True, help="Time real updates of the planned model here, and plan again with their speed."
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    budget: str | None,
    corpus: Path | None,
    measure: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Work out what a run will need, before anything is run.

    With --budget and --corpus: the model, tokens, batch, learning rate, time, memory and loss that the budget
    gives, each with its reason. The speed is the machine's peak (that `lmwright doctor` remembers) times a share
    that is assumed, which small models do not reach; --measure takes half a minute and knows.
    """
    asked = {name: value for name, value in given.items() if value is not None}
    if ctx.invoked_subcommand is not None:
        if budget is not None or corpus is not None or measure or as_json or asked:
            raise click.UsageError(
                f"--budget and its options plan a run, {ctx.invoked_subcommand!r} has options of its own; give "
                "them after it"
            )
        return
    if budget is None or corpus is None:
        raise click.UsageError("give --budget and --corpus, or `lmwright plan memory`")
    from lmwright.scaling.planning.budget import parse

    if parse(budget).device is not None and measure:
        raise click.UsageError(
            f"--measure times this machine, and the budget {budget!r} names devices; leave it away"
        )

    import json

    from lmwright.data.build import Corpus
    from lmwright.recipes import budget as recipe
    from lmwright.recipes import budget_words

    planned = _measured(budget, corpus, **asked) if measure else recipe.plan(budget, Corpus.open(corpus), **asked)
    if as_json:
        click.echo(json.dumps(budget_words.figures(planned), indent=2, allow_nan=False))
        return
    for line in budget_words.lines(planned):
        click.echo(line)


def _measured(
    budget: str, corpus: Path, *, family: str | None = None, context: int | None = None, **asked: Any
) -> BudgetPlan:
    """Plan as `lmwright pretrain --budget` does before it trains."""
    from lmwright.recipes import dial

    given: dict[str, dict[str, Any]] = {"data": {"corpus": str(corpus)}}
    if family is not None:
        given["architecture"] = {"family": family}
    if context is not None:
        given["data"]["context_length"] = context
    return dial.dial(budget, given, "plan", must_fit=False, say=_nothing, **asked).plan


def _nothing(text: str) -> None:
    """Say nothing: the plan is printed as a whole."""


@command.command()
@click.argument("settings", nargs=-1, metavar="[RUN.toml] [KEY=VALUE]...")
@click.option("--model", type=PATH, help="Model directory or config.json.")
@click.option(
    "--gpus", type=click.IntRange(min=1), default=1, show_default=True, help="Devices that share the work."
)
@click.option(
    "--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True, help="Their kind."
)
@click.option("--parallel", type=click.Choice(["ddp", "fsdp"]), help="A copy of the model on each, or a part.")
@click.option("--batch-size", type=int, help="Sequences in an update, over all devices; by default one for each.")
@click.option("--micro-batch-size", type=int, help="Sequences that a device computes at once.")
@click.option("--context", type=int, help="Tokens in a sequence.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), help="Of the matrix products.")
@click.option("--optimizer", help="Name of the optimiser.")
@click.option(
    "--activation-checkpointing/--no-activation-checkpointing", default=None, help="Compute blocks again."
)
@click.option("--bandwidth", type=float, help="GB/s that a device sends; gives seconds.")
@click.option("--peak", type=float, help="TFLOP/s of a device at best; gives seconds.")
@click.option(
    "--utilisation", type=click.FloatRange(0, 1, min_open=True), default=0.4, show_default=True,
    help="Share of --peak that is reached.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON, in bytes.")
def memory(
    settings: tuple[str, ...],
    model: Path | None,
    gpus: int,
    optimizer: str | None,
    bandwidth: float | None,
    peak: float | None,
    utilisation: float,
    as_json: bool,
    **flags: Any,
) -> None:
    """Show the memory of a training step on each device, and what the devices send each other.

    The model is that of --model, of a run file, or of settings such as architecture.hidden_size=4096.
    """
    import json

    from lmwright.recipes import memory_plan

    for name, value in (("--bandwidth", bandwidth), ("--peak", peak)):
        if value is not None and not 1e-6 <= value <= 1e9:
            raise click.UsageError(f"{name} {value}: must be from 0.000001 to a billion")
    given: dict[tuple[str, ...], Any] = {PLACES[name]: value for name, value in flags.items() if value is not None}
    if optimizer is not None:  # None first, for a file's other settings are those of another optimiser
        given |= {("training", "optimizer"): None, ("training", "optimizer", "name"): optimizer}
    tree, where = gather(settings, given)
    config = memory_plan.describe(tree, where, model=model, devices=gpus)
    planned = memory_plan.plan(config, devices=gpus)
    seconds = planned.seconds(
        bandwidth=None if bandwidth is None else bandwidth * GIGA,
        peak=None if peak is None else peak * 1e12,
        utilisation=utilisation,
    )
    if as_json:
        click.echo(json.dumps({**planned.figures(), "seconds": seconds}, indent=2))
        return
    _show(planned, seconds)


def _show(planned: MemoryPlan, seconds: dict[str, float]) -> None:
    figures, run = planned.figures(), planned.run
    mode = f" ({run.parallel})" if run.devices > 1 else ""
    again = ", blocks recomputed" if run.recompute else ""
    click.echo(f"model          {figures['parameters']:,} parameters")
    click.echo(
        f"update         {run.batch_size:,} sequences of {run.length:,} tokens on {run.devices:,} "
        f"device{'s' if run.devices > 1 else ''}{mode}, {run.sequences:,} at once, "
        f"{run.precision}, {figures['run']['optimizer']}{again}"
    )
    _show_memory(planned, figures)
    size, unit = _unit(figures["sent_bytes"]["total"])
    sent = ", ".join(
        f"{name.replace('_', '-')} {count / size:,.3f}" for name, count in figures["sent_bytes"].items() if count
    )
    click.echo(f"\nsent           {f'{sent} {unit}B' if sent else 'nothing'} by each device in an update")
    size, unit = _unit(planned.flops)
    click.echo(f"computed       {planned.flops / size:,.2f} {unit}FLOP by each device in an update")
    for name, value in seconds.items():
        click.echo(f"{name:<15}{value:.3f} s")


def _show_memory(planned: MemoryPlan, figures: dict[str, Any]) -> None:
    """Print what is held at each moment, all of it in the one unit that suits the most."""
    size, unit = _unit(figures["peak_bytes"])
    by_moment = figures["memory_bytes"]
    parts = [part for part in next(iter(by_moment.values())) if any(by_moment[name][part] for name in by_moment)]
    rows = [(part, [f"{by_moment[name][part] / size:,.3f}" for name in planned.moments]) for part in parts]
    width = max(10, 2 + max(len(text) for _, texts in rows for text in texts))
    power = len(f"{size:.0f}") - 1
    click.echo(f"\n{unit}B on each device at each moment of a step (1 {unit}B = 10^{power} bytes)")
    click.echo(f"{'':<15}" + "".join(f"{name:>{width}}" for name in planned.moments))
    for part, texts in rows:
        click.echo(f"{part:<15}" + "".join(f"{text:>{width}}" for text in texts))
    most, convention = (figures[name] / size for name in ("peak_bytes", "zero_convention_bytes"))
    click.echo(f"most           {most:,.3f} {unit}B, at {planned.peak!r}; allocators add to it")
    click.echo(
        f"by convention  {convention:,.3f} {unit}B of weights, gradients and optimiser at 16 bytes a parameter "
        "(ZeRO)"
    )


def _unit(most: float) -> tuple[float, str]:
    """Return the greatest unit that `most` reaches, and its prefix; the smallest one for less than that."""
    return next(((size, prefix) for size, prefix in UNITS if most >= size), UNITS[-1])
