"""Loss over a whole split: every token of the stream but the first is scored exactly once.

    nats/token = - sum log p(x_t | x_<t) / tokens            perplexity = exp(nats/token)
    bits/byte  = - sum log p(x_t | x_<t) / (ln 2 * bytes)    bytes: UTF-8 bytes of the documents' text

tokens counts the ends of text too, and the sum includes what they cost. bits/byte divides by bytes, which no
tokenizer changes, so it compares models of different tokenizers; nats/token and perplexity do not. The stream is
cut into rows of the context's length, and a token sees what is before it in its row. Logits are taken in the
precision asked for, log-probabilities in fp32, sums in fp64. Knows nothing of files.

A recurrent model sees more: its state goes on from row to row, as in training on one stream. So that this takes no
longer than other models do, the rows are cut into stretches of neighbours that are read side by side, each from a
state of zeros: one for every STRETCH tokens of the split and at least one, STRETCHES at most, as even as can be,
the longer ones first. So it is for every batch size, and however the model was trained: one of packed documents
meets here, as one with attention does, the ends of documents before.
"""

# B batch, T query

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lmwright.data.batch import Batch
from lmwright.data.pack import PackPlan, plan_evaluation
from lmwright.data.split import TokenSplit
from lmwright.errors import CheckpointError, ConfigError, DataError
from lmwright.model.context import Context
from lmwright.model.language_model import LanguageModel
from lmwright.model.state import KVState
from lmwright.objectives._cross_entropy import summed_cross_entropy
from lmwright.progress import bar
from lmwright.train.ranks import SINGLE, Ranks

STRETCH = 4096  # tokens: beside so many, what a state of zeros costs at their beginning is little
STRETCHES = 16  # side by side; more at a time are hardly faster

Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class SplitLoss:
    """Sums over one split, and what follows from them.

    nats: summed negative log-probability. tokens: scored ones, ends of text included. bytes: UTF-8 bytes of text.
    documents: number of them. context_length: tokens a row. stretches: of rows that one state went through, None
    where each row was read by itself.
    """

    nats: float
    tokens: int
    bytes: int
    documents: int
    context_length: int
    stretches: int | None = None

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
    stretches = _stretches(plan) if model.config.recurrent else None
    walks = _walks(plan.num_sequences, stretches, batch_size, ranks.world_size)
    nats, tokens, wrong, state = 0.0, 0, list[str](), None
    with bar("evaluating", total=split.num_tokens - 1, unit="tok", shown=progress) as shown:
        for rows, continues, counts in _calls(walks, ranks):
            batch = Batch.of(plan.fetch(rows)).to(device)
            if stretches is not None:
                blank = KVState(model.config, len(rows), 1, dtype=dtype, device=device)
                state = state.rows(0, len(rows)) if continues and state is not None else blank
            found = _nats(model, batch, dtype, state)
            if not counts:
                continue
            if not math.isfinite(found):
                wrong.append(f"{rows[0] * context_length} to {(rows[-1] + 1) * context_length} is {found}")
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
        stretches=stretches,
    )


def _stretches(plan: PackPlan) -> int:
    """Return into how many stretches the rows are cut that a state goes through."""
    return min(max(1, (plan.split.num_tokens - 1) // STRETCH), STRETCHES, plan.num_sequences)


def _walks(count: int, stretches: int | None, batch_size: int, processes: int) -> list[list[Rows]]:
    """Return what each batch reads, one after the other: its rows, and no more, or the next of its stretches."""
    if stretches is None:
        return [[np.arange(at, min(at + batch_size, count))] for at in range(0, count, batch_size)]
    each, more = divmod(count, stretches)
    lengths = np.array([each + (number < more) for number in range(stretches)])
    starts, size = np.cumsum(lengths) - lengths, min(batch_size, math.ceil(stretches / processes))
    groups = [slice(at, at + size) for at in range(0, stretches, size)]
    return [
        [starts[group][lengths[group] > place] + place for place in range(lengths[group].max())]
        for group in groups
    ]


def _calls(walks: list[list[Rows]], ranks: Ranks) -> Iterator[tuple[Rows, bool, bool]]:
    """Yield the forward calls of a process: their rows, whether these go on after those of the call before, and
    whether they count. All processes make as many; who has none left makes its last one again, for company.
    """
    for first in range(0, len(walks), ranks.world_size):
        number = first + ranks.rank
        walk = walks[min(number, len(walks) - 1)]
        for place in range(len(walks[0])):  # no other one is longer
            rows = walk[min(place, len(walk) - 1)]
            yield rows, place > 0, number < len(walks) and place < len(walk)


@torch.no_grad()
def _nats(model: LanguageModel, batch: Batch, dtype: torch.dtype, state: KVState | None) -> float:
    """Return the summed loss of a batch, in fp64; state: what its rows go on from."""
    if state is None:
        ctx = Context.dense(batch.ids_BT, dtype=dtype)
    else:
        ctx = Context.cached(state, batch.ids_BT, dtype=dtype)
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
