"""Measured points from files and runs to a fitted law, and where the law may be written.

    points = gather([Path("runs")], convention="chinchilla")
    found = fit_law(points, curves=gather_curves([Path("runs")], points))
    print("\n".join(fit_words.lines(found)))
    atomic_write_text(out, found.fitted.to_json())

and the figures, in a notebook too:

    for name, figure in scaling_figures.draw(found.fitted, found.points, found.frontier).items():
        figure.savefig(f"{name}.png")

Torch-free.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lmwright.errors import ConfigError, DataError
from lmwright.report import run_points
from lmwright.runs import refuse_existing_file
from lmwright.scaling.fit import Fitted
from lmwright.scaling.flops import Convention
from lmwright.scaling.points import Points, join, read_csv


def gather(
    sources: Sequence[Path],
    *,
    convention: Convention | None = None,
    metric: str | None = None,
    tell: run_points.Tell | None = None,
) -> Points:
    """Return the points of CSV files and of run directories, together.

    convention: how N is counted; of runs, all parameters where it is not said. metric: nats/token unless a file
    says otherwise. tell: is told what is left out. Raises ConfigError or DataError as `read_csv`,
    `run_points.measured` and `join`, and where a file's metric is not the one asked for.
    """
    parts = []
    for path in (path for path in sources if not path.is_dir()):
        if not path.exists():
            raise DataError(f"{path}: is not there; give a CSV file of points, or directories of runs")
        part = read_csv(path, convention=convention, metric=metric or "nats/token")
        if metric is not None and part.metric != metric:
            raise ConfigError(f"{path}: its losses are in {part.metric}, not in {metric}; leave --metric away")
        parts.append(part)
    runs = [path for path in sources if path.is_dir()]
    if runs:
        kind = convention or (parts[0].convention if parts else "chinchilla")
        parts.append(run_points.measured(runs, convention=kind, metric=metric or "nats/token", tell=tell))
    return join(parts)


def gather_curves(sources: Sequence[Path], points: Points) -> Points | None:
    """Return the losses along the runs that `points` were gathered from; None without runs, or need of them.

    Files have their curves in their points. Raises as `gather`.
    """
    runs = [path for path in sources if path.is_dir()]
    return run_points.curves_of(runs, points) if runs else None


def refuse_place(out: Path | None, *, force: bool) -> None:
    """Raise ConfigError unless a law may be written to `out`: a .json name, nothing there, or a law with force."""
    if out is None:
        return
    if out.suffix.lower() != ".json":
        raise ConfigError(f"{out}: must be a name that ends in .json, for that is what is written there")
    refuse_existing_file(out, force=force)
    if out.exists():
        try:
            Fitted.from_json(out.read_text(encoding="utf-8"), str(out))
        except (ConfigError, ValueError):
            raise ConfigError(
                f"{out}: is no law of lmwright, so it is not replaced; choose another place"
            ) from None
