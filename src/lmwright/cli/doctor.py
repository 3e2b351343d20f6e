"""`lmwright doctor`: what this machine can do, and what is wrong with it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--again", is_flag=True, help="Measure anew, though the machine is known.")
def command(as_json: bool, again: bool) -> None:
    """Measure the machine: FLOP/s by dtype and threads, memory bandwidth, threads that pay; warn of what slows it.

    The first time takes some seconds; the result is kept in the user's cache directory.
    """
    from lmwright.recipes import doctor, doctor_advice

    machine = doctor.examine(again=again, say=lambda line: click.echo(line, err=True))
    moment = doctor_advice.look(Path.cwd())
    warnings = list(doctor_advice.warnings(machine, moment))
    if as_json:
        figures = {"machine": dataclasses.asdict(machine), "now": dataclasses.asdict(moment), "warnings": warnings}
        click.echo(json.dumps(figures, indent=2))
        return
    for name, text in doctor_advice.describe(machine, moment):
        click.echo(f"{name:<14}{text}")
    for warning in warnings:
        click.echo(f"{'warning':<14}{warning}")
