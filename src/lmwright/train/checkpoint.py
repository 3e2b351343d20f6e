"""Checkpoints of a run: a Hugging Face directory that opens everywhere, and beside it what a resume needs.

    checkpoints/step-000100/
      config.json model.safetensors tokenizer.json ...   the model
      state/optimizer.safetensors                        the optimiser's tensors
      state/average.safetensors                          the average of the weights, where the run keeps one
      state/carried.safetensors                          where a recurrent model goes on in each row of the batch
      state/trainer.json                                 step, samples, tokens, seconds, watch, fingerprints
      MANIFEST.json                                      size and SHA-256 of each file, written last

Where processes hold parts of the model (fsdp), each writes its rows of the optimiser's tensors and of the average
to a file of its own (`train.slices`), and whole layers of the model to another: model-00002-of-00004.safetensors
and an index, as Hugging Face has it. So does each with its rows of the carried state, under ddp too. Any number of
processes can go on from any of these forms. All of them must see one file system.

No state of a random generator is kept: every stream is named by seed and step (`lmwright.seeds`). A directory is
filled beside its name, synced and renamed, so one without a true manifest is never chosen.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmwright.config import convert
from lmwright.errors import CheckpointError, ConfigError
from lmwright.runs import (
    CHECKPOINT,
    PARTIAL,
    RunDirectory,
    atomic_directory,
    atomic_write_json,
    atomic_write_text,
    read_json,
    verify_manifest,
)
from lmwright.train.ranks import SINGLE, Ranks

if TYPE_CHECKING:
    from lmwright.model.language_model import LanguageModel
    from lmwright.text.tokenizer import Tokenizer
    from lmwright.train.average import WeightAverage
    from lmwright.train.carried import Carried
    from lmwright.train.optimizers import Optimizer

STATE = "state"


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a run stands.

    step: updates made. tokens: targets trained on. seconds: wall time by what it was spent on (train, evaluation,
    checkpoint), over all processes of the run. evaluated: step of the last evaluation; validation_loss: what it
    gave, in nats per token. best_step, best_loss: of the saved checkpoint with the lowest one, None before there
    is any. loader: the state of the loader, which knows what data it belongs to. watch: that of the diagnosis.
    config: fingerprint of the settings that a resume must meet again.
    """

    step: int = 0
    tokens: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    evaluated: int = 0
    validation_loss: float | None = None
    best_step: int | None = None
    best_loss: float | None = None
    loader: dict[str, Any] = field(default_factory=dict)
    watch: dict[str, Any] = field(default_factory=dict)
    config: str = ""

    def after(self, *, tokens: int, seconds: Mapping[str, float], loader: Mapping[str, Any]) -> State:
        """Return the state one update later."""
        return replace(
            self, step=self.step + 1, tokens=self.tokens + tokens, seconds=dict(seconds), loader=dict(loader)
        )

    def judged(self) -> State:
        """Return the state with this step as the best one, if it was evaluated and is."""
        loss = self.validation_loss if self.evaluated == self.step else None
        if loss is None or (self.best_loss is not None and loss >= self.best_loss):
            return self
        return replace(self, best_step=self.step, best_loss=loss)


def fingerprint(*facts: Mapping[str, Any]) -> str:
    """Return a hash of what must be the same for a resume to be one."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def name_of(step: int) -> str:
    """Return the directory name of the checkpoint after `step` updates."""
    return f"step-{step:06d}"


def save(
    run: RunDirectory,
    state: State,
    *,
    model: LanguageModel,
    optimizer: Optimizer,
    average: WeightAverage | None,
    tokenizer: Tokenizer | None,
    keep: int,
    carried: Carried | None = None,
    ranks: Ranks = SINGLE,
) -> Path:
    """Write the checkpoint of `state`, point `latest` and `best`; keep the newest `keep` and the best.

    Every process of the run must call it; they all return or all raise.
    """
    from lmwright.train import model_files, slices

    final = run.checkpoints / name_of(state.step)
    with _directory(final, ranks) as partial:
        model_files.write(model, partial, tokenizer, ranks)
        with ranks.together():
            slices.write(optimizer.tensors(), partial / STATE, "optimizer", ranks)
            if average is not None:
                slices.write(average.tensors(), partial / STATE, "average", ranks)
            if carried is not None:
                carried.write(partial / STATE)
            if ranks.first:
                atomic_write_json(partial / STATE / "trainer.json", asdict(state))
    ranks.once(lambda: _conclude(run, state, keep))
    return final


@contextlib.contextmanager
def _directory(final: Path, ranks: Ranks) -> Iterator[Path]:
    """`atomic_directory`, made and completed by the first process, filled by all."""
    with contextlib.ExitStack() as stack:

        def make() -> str:
            # One of the same step can only be there if it failed its verification: a good one would have been
            # resumed.
            made = stack.enter_context(atomic_directory(final, CHECKPOINT, force=True))
            (made / STATE).mkdir()
            return str(made)

        partial = Path(ranks.once(make))
        with ranks.together():
            if not partial.is_dir():
                raise CheckpointError(
                    f"{final.parent}: process {ranks.rank} does not see what the first one makes there; put the "
                    "run where all machines have one file system"
                )
        yield partial
        ranks.once(stack.close)


def _conclude(run: RunDirectory, state: State, keep: int) -> None:
    point(run, state)
    sound = [path for path in steps(run) if _step_of(path) <= state.step]  # beyond it they failed to be restored
    for old in sound[:-keep]:
        if _step_of(old) != state.best_step:
            _remove(old)


def point(run: RunDirectory, state: State) -> None:
    """Let `latest` and `best` name their checkpoints; a resume does it again: a kill may follow on a save.

    The best one may be gone where a resume went back to a checkpoint before a better one. `best` then waits for
    the run to come by that better one again.
    """
    atomic_write_text(run.path / "latest", name_of(state.step) + "\n")
    if state.best_step is not None and (run.checkpoints / name_of(state.best_step)).is_dir():
        atomic_write_text(run.path / "best", name_of(state.best_step) + "\n")
    else:
        (run.path / "best").unlink(missing_ok=True)


def steps(run: RunDirectory) -> list[Path]:
    """Return the run's checkpoint directories, oldest first, sound or not. CheckpointError if a file is there."""
    if os.path.lexists(run.checkpoints) and not run.checkpoints.is_dir():
        raise CheckpointError(
            f"{run.checkpoints}: is a file, and must be the directory of the run's checkpoints; put that back"
        )
    found = run.checkpoints.glob("step-*") if run.checkpoints.is_dir() else ()
    return sorted((path for path in found if path.name[5:].isdecimal()), key=_step_of)


def _step_of(path: Path) -> int:
    return int(path.name[5:])


def newest(run: RunDirectory, warn: Callable[[str], None], *, with_state: bool = True) -> Path | None:
    """Return the newest checkpoint whose every file is as its manifest says, or None if the run has none at all.

    with_state: False for one who reads the model alone; the state, two thirds of the bytes, is then not looked at.
    Each one passed over is named in a warning, but for those that a run in training removes meanwhile: it has put
    newer ones in their place. Raises CheckpointError if there are some and none is sound.
    """
    found = steps(run)
    for path in reversed(found):
        try:
            verify_manifest(path, leave_out=None if with_state else STATE)
            return path
        except (CheckpointError, OSError) as error:
            if not os.path.lexists(path):
                return newest(run, warn, with_state=with_state)
            warn(f"{error}; going back to the checkpoint before it")
    if found:
        raise CheckpointError(f"{run.checkpoints}: none of the {len(found)} checkpoints is sound; start anew")
    return None


def restore(
    path: Path,
    *,
    model: LanguageModel,
    optimizer: Optimizer,
    average: WeightAverage | None = None,
    carried: Carried | None = None,
) -> State:
    """Load a checkpoint into `model`, `optimizer`, `average` and `carried`; return the state.

    Whatever number of processes wrote it and reads it; none reads more than its own rows.
    """
    import torch

    from lmwright.model.checkpoint import load_model
    from lmwright.train import slices

    parameters = dict(model.named_parameters())
    saved = dict(load_model(path).named_parameters())  # mapped from the files, so only what is copied is read
    with torch.no_grad():
        for name, parameter in parameters.items():
            # Copied into the parameter's own memory: a file-backed tensor may be aligned otherwise, and kernels
            # choose their order of sums by alignment.
            first, end = slices.own_rows(parameter)
            slices.own_part(parameter).copy_(saved[name][first:end])
    optimizer.load(slices.read(path / STATE, "optimizer", lambda name: parameters.get(name.rpartition(".")[0])))
    state = read_state(path)
    if average is not None:
        average.load(slices.read(path / STATE, "average", parameters.get), state.step)
    if carried is not None:
        carried.read(path / STATE)
    return state


def keeps_average(path: Path) -> bool:
    """Return whether a checkpoint has an average of the weights; needs no torch."""
    return any((path / STATE).glob("average*.safetensors"))


def take_average(path: Path, model: LanguageModel) -> None:
    """Let a whole model that was opened from a checkpoint hold the average of the weights, not the last ones.

    Whatever number of processes wrote it. Raises CheckpointError for what is missing, damaged or does not fit.
    """
    from lmwright.train import slices
    from lmwright.train.average import refuse_misfit

    parameters = dict(model.named_parameters())
    tensors = slices.read(path / STATE, "average", parameters.get)
    refuse_misfit(tensors, parameters)
    # Put in place of the weights: these are mapped from the checkpoint's own files.
    model.load_state_dict({name: tensors[name].to(own) for name, own in parameters.items()}, assign=True)


def read_state(path: Path) -> State:
    """Return the trainer's state in a checkpoint."""
    where = path / STATE / "trainer.json"
    try:
        return convert(read_json(where), State, str(where))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


def sweep(run: RunDirectory) -> None:
    """Remove what a killed process left unfinished in the checkpoints' directory; only for the lock's holder."""
    if run.checkpoints.is_dir():
        for path in run.checkpoints.glob(f"{PARTIAL}*"):
            shutil.rmtree(path, ignore_errors=True)


def _remove(path: Path) -> None:
    """Remove a checkpoint: out of sight first, so that a kill on the way leaves no half of one under its name."""
    gone = path.with_name(f"{PARTIAL}{os.getpid()}-gone-{path.name}")
    os.replace(path, gone)
    shutil.rmtree(gone, ignore_errors=True)
