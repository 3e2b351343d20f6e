"""torch.compile where it pays on any machine: what lies between the matrices, in one pass over memory each.

Norms and activations are most of a CPU step that is no product; compiled, each reads its rows once, forward and
backward, in their own precision. They are small, and one compiled kernel serves all layers, so it takes seconds
and not minutes. Products and attention are left to the libraries that have tuned kernels for them: compiled whole,
a block gained less and took longer to compile.

Only where gradients are enabled: evaluation and generation have ever other shapes, each to be compiled anew.
The kernels depend on shapes, dtype and number of threads alone, not on what ran before: a resume is bitwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lmwright.errors import ConfigError, UnsupportedError
from lmwright.model.ffn.dense import Activation
from lmwright.model.language_model import LanguageModel
from lmwright.model.norm import Norm

METHODS = {Activation: ("forward",), Norm: ("forward", "of_sum")}
LEAST_GAIN = 0.05  # of a micro-batch's time: less is within what machines vary by
MARGIN = 1.5  # times the seconds of compilation must be saved
# Before anything is compiled: no run was seen to save a larger share, nor a first compilation to take less.
MOST_GAIN, LEAST_SECONDS = 0.3, 5.0
TURNS = 5
NOTHING = "this model has neither norms nor activations, which are what is compiled"
MOST_SHAPES = 256  # that one process trains with; torch's own limit is 8


@dataclass
class Compiled:
    """Which way a model of `compile_model` goes where it trains: with its kernels, or without."""

    active: bool = True


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What compilation was measured to be worth; seconds of a micro-batch each way, and of compiling once.

    reason: for the decision, in words. Figures are None where nothing was measured: all of them where it does not
    hang on the length of the run, the compiled ones where that was too short to try.
    """

    compile: bool
    reason: str
    eager_seconds: float | None = None
    compiled_seconds: float | None = None
    compile_seconds: float | None = None

    def of_run(self, micro_batches: int) -> Trial | None:
        """Return the same decision for a run of so many micro-batches; None where it would not be the same."""
        if self.eager_seconds is None:
            return self
        if self.compiled_seconds is None or self.compile_seconds is None:
            return _too_short(self.eager_seconds, micro_batches)
        found = decide(self.eager_seconds, self.compiled_seconds, self.compile_seconds, micro_batches)
        return found if found.compile == self.compile else None


def compile_model(model: LanguageModel) -> Compiled:
    """Let the model's norms and activations be compiled when they next train. Changes no weight and no name.

    The first micro-batch takes seconds longer; where there is no C++ compiler it fails: see `checked`. The kernels
    are the process's: a second model of the same shapes finds them made. Raises ConfigError for a model of which
    nothing is compiled.
    """
    if not _methods(model):
        raise ConfigError(f"training.compile = true: {NOTHING}; set it to false, or leave it out")
    from torch._dynamo import config  # takes seconds: only where something is compiled

    # Beyond its limit of shapes torch runs a function as it is. Then what a model computes would depend on how
    # many others the process has trained; with `fullgraph` it is an error, and not to be met.
    config.recompile_limit = max(config.recompile_limit, MOST_SHAPES)
    state = Compiled()
    for module, name in _methods(model):
        _replace(module, name, state)
    return state


def _methods(model: LanguageModel) -> list[tuple[nn.Module, str]]:
    """Return what is compiled of a model, by module and name."""
    kinds = METHODS.items()
    return [
        (one, name) for one in model.modules() for kind, names in kinds if isinstance(one, kind) for name in names
    ]


def _replace(module: nn.Module, name: str, state: Compiled) -> None:
    plain = getattr(module, name)
    compiled = torch.compile(plain, dynamic=False, fullgraph=True)

    def method(*args: Any) -> Any:
        return (compiled if state.active and torch.is_grad_enabled() else plain)(*args)

    setattr(module, name, method)


def checked(micro_batch: Callable[[], object]) -> float:
    """Run the first micro-batch of a compiled model; return its seconds.

    Raises ConfigError where the machine cannot compile.
    """
    start = time.perf_counter()
    try:
        micro_batch()
    except Exception as error:
        if not _of_compiler(error):
            raise
        line = next(iter(str(error).splitlines()), "")
        raise ConfigError(
            f"training.compile = true: torch.compile does not work here ({line}); install a C++ compiler (g++), "
            "or set training.compile = false"
        ) from error
    return time.perf_counter() - start


def _of_compiler(error: Exception) -> bool:
    """Whether torch.compile failed and not the model; asked after it has run, so its modules are loaded."""
    from torch._dynamo.exc import TorchDynamoException

    return isinstance(error, TorchDynamoException)


def try_out(model: LanguageModel, micro_batch: Callable[[], object], micro_batches: int) -> Trial:
    """Measure whether compiling pays in a run of so many micro-batches, and say why.

    model: one to throw away, on which `micro_batch` runs forward and backward; it has warmed up. By turns, so that
    a disturbed moment hits both; the least time of each counts.
    """
    if not _methods(model):
        return Trial(compile=False, reason=NOTHING)
    start = time.perf_counter()
    micro_batch()
    eager = time.perf_counter() - start
    if (short := _too_short(eager, micro_batches)) is not None:
        return short
    parts = compile_model(model)
    try:
        first = checked(micro_batch)
    except ConfigError as error:
        parts.active = False
        return Trial(compile=False, reason=str(error).partition(": ")[2])
    seconds = {False: eager, True: first}
    for _ in range(TURNS):
        for active in (False, True):
            parts.active = active
            start = time.perf_counter()
            micro_batch()
            seconds[active] = min(seconds[active], time.perf_counter() - start)
    found = decide(seconds[False], seconds[True], max(0.0, first - seconds[True]), micro_batches)
    parts.active = found.compile
    return found


def _too_short(eager: float, micro_batches: int) -> Trial | None:
    """Return the decision not to try where the most that was ever saved would not pay; None where it might."""
    at_most = eager * micro_batches * MOST_GAIN
    if at_most >= MARGIN * LEAST_SECONDS:
        return None
    reason = f"not tried: the run is too short to save more than {at_most:.1f} s"
    return Trial(compile=False, reason=reason, eager_seconds=eager)


def decide(eager: float, compiled: float, compile_seconds: float, micro_batches: int) -> Trial:
    """Return the decision on measured seconds: of a micro-batch each way, and of compiling once."""
    gain, saved = 1.0 - compiled / eager, (eager - compiled) * micro_batches
    worth = gain > LEAST_GAIN and saved > MARGIN * compile_seconds
    reason = (
        f"a micro-batch takes {compiled:.3g} s for {eager:.3g} s ({gain:+.0%} saved), {saved:.0f} s in the run; "
        f"compiling takes {compile_seconds:.0f} s"
    )
    return Trial(
        compile=worth,
        reason=reason,
        eager_seconds=eager,
        compiled_seconds=compiled,
        compile_seconds=compile_seconds,
    )


def refuse_sharded(parallel: str, processes: int) -> None:
    """Raise UnsupportedError where blocks are cut among processes: their norms' gains come and go."""
    if parallel == "fsdp" and processes > 1:
        raise UnsupportedError("training.compile: not with parallel = fsdp; take ddp, or set compile = false")
