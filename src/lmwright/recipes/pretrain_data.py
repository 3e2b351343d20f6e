"""The data of a pretraining run: its corpus, opened once in a process, and its sequences. Torch-free."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmwright.data.build import Corpus
from lmwright.data.overlap import token_counts
from lmwright.data.pack import PackPlan, plan_blocks, plan_documents
from lmwright.data.split import TokenSplit
from lmwright.errors import DataError
from lmwright.recipes.pretrain_config import DataConfig, PretrainConfig


@dataclass(frozen=True)
class RunData:
    """What a run reads.

    plan: the train split, cut or packed into sequences as the settings say. validation: the split that is held
    out, None where the run never evaluates. opened_for: the settings that it was opened for.
    """

    corpus: Corpus
    plan: PackPlan
    validation: TokenSplit | None
    opened_for: DataConfig

    def serves(self, config: PretrainConfig) -> bool:
        """Whether this is what a run of such settings would open: the same sequences, enough for its batch."""
        plan, data = self.plan, config.data
        return (
            self.opened_for == data
            and plan.num_sequences >= config.training.batch_size
            and (self.validation is not None or not config.training.eval_every)
        )

    @functools.cached_property
    def counts_V(self) -> NDArray[np.int64]:
        """How often each id is a target of the train split; see `token_counts`. Read when first asked for."""
        return token_counts(self.plan.split)


def carries(config: PretrainConfig) -> bool:
    """Return whether the run's model takes its state along from update to update (`train.carried`).

    So a recurrent one does where the text is one stream; in packed documents it begins each of them anew.
    """
    return config.architecture.recurrent and config.data.packing == "contiguous"


def open_data(config: PretrainConfig, place: Path, *, verify: bool) -> RunData:
    """Open the corpus at `place` and cut or pack its train split into sequences.

    verify: check every file's checksum. Raises DataError if the sequences do not fill one batch, or what the run
    reads is missing or damaged.
    """
    corpus = Corpus.open(place, verify=verify)
    split = corpus.split("train")
    length, batch = config.data.context_length, config.training.batch_size
    plan: PackPlan = (plan_blocks if config.data.packing == "contiguous" else plan_documents)(split, length)
    if plan.num_sequences < batch:
        raise DataError(
            f"{place}: too small: its train split has {split.num_tokens} tokens, {plan.num_sequences} sequences "
            f"of {length}, and a batch takes {batch}; give more text, or a smaller batch or context"
        )
    return RunData(corpus, plan, _validation(corpus) if config.training.eval_every else None, config.data)


def _validation(corpus: Corpus) -> TokenSplit:
    try:
        return corpus.split("validation")
    except DataError as error:
        raise DataError(f"{error}; only a run with training.eval_every = 0 can do without it") from None
