"""Loss over a whole split: every token of the stream but the first is scored exactly once.

    nats/token = - sum log p(x_t | x_<t) / tokens            perplexity = exp(nats/token)
    bits/byte  = - sum log p(x_t | x_<t) / (ln 2 * bytes)    bytes: UTF-8 bytes of the documents' text

tokens counts the ends of text too, and the sum includes what they cost. bits/byte divides by bytes, which no
tokenizer changes, so it compares models of different tokenizers; nats/token and perplexity do not. The stream is
cut into rows of the context's length, and a token sees what is before it in its row. Logits are taken in the
precision asked for, log-probabilities in fp32, sums in fp64. Knows nothing of files.
"""

# B batch, T query

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from lmwright.data.batch import Batch
from lmwright.data.pack import plan_evaluation
from lmwright.data.split import TokenSplit
from lmwright.errors import CheckpointError, ConfigError, DataError
from lmwright.model.context import Context
from lmwright.model.language_model import LanguageModel
from lmwright.objectives._cross_entropy import summed_cross_entropy
from lmwright.progress import bar
from lmwright.train.ranks import SINGLE, Ranks


@dataclass(frozen=True, kw_only=True)
class SplitLoss:
    """Sums over one split, and what follows from them.

    nats: summed negative log-probability. tokens: scored ones, ends of text included. bytes: UTF-8 bytes of text.
    documents: number of them. context_length: tokens a row.
    """

    nats: float
    tokens: int
    bytes: int
    documents: int
    context_length: int

    @property
    def nats_per_token(self) -> float:
        """Mean loss of a token, in nats."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(nats per token); infinite beyond 1e308."""
        return math.exp(self.nats_per_token) if self.nats_per_token < 709 else math.inf

    @property
    def bits_per_byte(self) -> float:
        """Bits needed to write a byte of the text, the ends of text included in the cost."""
        return self.nats / math.log(2) / self.bytes


def evaluate_split(
    model: LanguageModel,
    split: TokenSplit,
    *,
    context_length: int,
    batch_size: int,
    dtype: torch.dtype = torch.float32,
    progress: bool = False,
    ranks: Ranks = SINGLE,
) -> SplitLoss:
    """Return the loss of `model` over the whole of `split`; the result does not depend on batch_size.

    dtype: precision of the computation. progress: show a bar. ranks: processes that share the batches, and all
    return the whole; each makes as many forward calls as the others, for these may be collective. Raises
    ConfigError for a context or a batch that the model cannot have, DataError for a split of another vocabulary or
    without text, CheckpointError if the loss is not finite.
    """
    _check(model, split, context_length, batch_size)
    context_length = min(context_length, split.num_tokens - 1)
    plan = plan_evaluation(split, context_length)
    device = next(model.parameters()).device
    starts = range(0, plan.num_sequences, batch_size)
    nats, tokens, wrong = 0.0, 0, list[str]()
    with bar("evaluating", total=split.num_tokens - 1, unit="tok", shown=progress) as shown:
        for first in range(0, len(starts), ranks.world_size):
            number = first + ranks.rank
            start = starts[min(number, len(starts) - 1)]
            rows = np.arange(start, min(start + batch_size, plan.num_sequences))
            batch = Batch.of(plan.fetch(rows)).to(device)
            found = _nats(model, batch, dtype)
            if number >= len(starts):  # the last one again, for company
                continue
            if not math.isfinite(found):
                wrong.append(f"{start * context_length} to {(start + len(rows)) * context_length} is {found}")
                if not ranks.several:
                    break
            nats += found
            tokens += batch.num_targets()
            shown.update(batch.num_targets())
    told = ranks.gather({"nats": nats, "tokens": tokens, "wrong": wrong[:1]})
    if wrong := [one for each in told for one in each["wrong"]]:
        raise CheckpointError(
            f"{split.name}: the loss of tokens {wrong[0]}: the model's weights are damaged or too large for this "
            "precision; check the checkpoint, or try fp32"
        )
    return SplitLoss(
        nats=math.fsum(each["nats"] for each in told),
        tokens=sum(each["tokens"] for each in told),
        bytes=split.num_bytes,
        documents=split.num_documents,
        context_length=context_length,
    )


@torch.no_grad()
def _nats(model: LanguageModel, batch: Batch, dtype: torch.dtype) -> float:
    """Return the summed loss of a batch, in fp64."""
    ctx = Context.dense(batch.ids_BT, dtype=dtype)
    return float(summed_cross_entropy(model, model(batch.ids_BT, ctx), batch.labels_BT, ctx)[1])


def _check(model: LanguageModel, split: TokenSplit, context_length: int, batch_size: int) -> None:
    longest = model.config.max_positions
    if not 1 <= context_length <= longest:
        raise ConfigError(f"context length {context_length}: must be from 1 to {longest}, the model's context")
    if batch_size < 1:
        raise ConfigError(f"batch size {batch_size}: must be at least 1")
    if split.vocab_size > model.config.vocab_size:
        raise DataError(
            f"{split.name}: has a vocabulary of {split.vocab_size}, the model one of {model.config.vocab_size}; "
            "evaluate on text encoded with the model's own tokenizer"
        )
    if split.num_bytes == 0:
        raise DataError(f"{split.name}: holds no text, only empty documents; give some text")
