"""The sequences of a pretraining run: its corpus's train split, cut or packed as its settings say. Torch-free."""

from __future__ import annotations

from lmwright.data.build import Corpus
from lmwright.data.pack import PackPlan, plan_blocks, plan_documents
from lmwright.errors import DataError
from lmwright.recipes.pretrain_config import PretrainConfig


def sequences(config: PretrainConfig, corpus: Corpus) -> PackPlan:
    """Cut or pack the split into sequences. Raises DataError if they do not fill one batch."""
    split = corpus.split("train")
    length, batch = config.data.context_length, config.training.batch_size
    plan: PackPlan = (plan_blocks if config.data.packing == "contiguous" else plan_documents)(split, length)
    if plan.num_sequences < batch:
        raise DataError(
            f"{config.data.corpus}: too small: its train split has {split.num_tokens} tokens, "
            f"{plan.num_sequences} sequences of {length}, and a batch takes {batch}; give more text, or a "
            "smaller batch or context"
        )
    return plan
