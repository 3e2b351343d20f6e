"""Truncated backpropagation through time: the state of each row goes on from update to update, and is torch's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_helpers import random_documents, shard_split
from torch import Tensor, nn

from lmwright.data.loader import Loader
from lmwright.data.pack import BlockPlan, plan_blocks
from lmwright.errors import CheckpointError, DataError, UnsupportedError
from lmwright.model.config import ModelConfig
from lmwright.model.context import Context
from lmwright.model.families import lstm as family
from lmwright.model.language_model import LanguageModel
from lmwright.model.state import KVState
from lmwright.objectives import causal
from lmwright.train import gradient
from lmwright.train.carried import Carried
from lmwright.train.optimizers import adamw
from lmwright.train.ranks import SINGLE, Ranks

VOCAB, WIDTH, LAYERS, LENGTH, ROWS = 40, 12, 2, 8, 5
CONFIG = ModelConfig.of_family(
    "lstm", vocab_size=VOCAB, hidden_size=WIDTH, num_layers=LAYERS, max_positions=LENGTH, tie_embeddings=False
)
STEPS = 11  # of 4 an epoch: three epochs


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> BlockPlan:
    """23 rows: four for each of five streams, and three to spare."""
    documents = random_documents([90, 33, 58], vocab_size=VOCAB)
    made = plan_blocks(shard_split(tmp_path_factory.mktemp("carried"), [documents], VOCAB), LENGTH)
    assert made.num_sequences == 23
    return made


@dataclass
class Run:
    """A model in training; `losses`: of its updates."""

    plan: BlockPlan
    micro: int = ROWS
    recompute: bool = False
    dropout: float = 0.0
    precision: str = "fp32"

    def __post_init__(self) -> None:
        self.model = started(self.dropout)
        self.optimizer = adamw.build(
            dict(self.model.named_parameters()), adamw.Settings(lr=1e-2, weight_decay=0.0)
        )
        self.loader = Loader(self.plan, batch_size=ROWS, seed=3, streams=True)
        self.carried = carried(self.precision)
        self.losses: list[float] = []

    def gradient(self, batch: Any) -> gradient.Gradient:
        return gradient.compute(
            self.model,
            causal.loss,
            batch,
            micro_batch_size=self.micro,
            precision=self.precision,
            clip_norm=None,
            dropout=lambda row: torch.Generator().manual_seed(row) if self.dropout else None,
            recompute=self.recompute,
            carried=self.carried,
        )

    def update(self) -> None:
        found = self.gradient(self.loader.next_batch())
        self.optimizer.step(1.0)
        self.carried.keep()
        self.losses.append(found.loss_sum / found.count)

    def trained(self, steps: int = STEPS) -> Run:
        for _ in range(steps):
            self.update()
        return self

    def weights(self) -> Tensor:
        return torch.cat([one.detach().flatten() for one in self.model.parameters()])


def started(dropout: float = 0.0) -> LanguageModel:
    model = LanguageModel(replace(CONFIG, residual_dropout=dropout))
    model.init_weights(torch.Generator().manual_seed(0))
    return model


def carried(precision: str = "fp32", ranks: Ranks = SINGLE, rows: int = ROWS) -> Carried:
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    return Carried(CONFIG, batch_size=rows, ranks=ranks, dtype=dtype, device="cpu")


class Twin(nn.Module):
    """torch.nn.LSTM between a table and a head, with the weights of `started`."""

    def __init__(self) -> None:
        super().__init__()
        model = started()
        self.table = nn.Embedding(VOCAB, WIDTH)
        self.lstm = nn.LSTM(WIDTH, WIDTH, LAYERS, batch_first=True)
        self.head = nn.Linear(WIDTH, VOCAB, bias=False)
        files = family.to_file({name: one.detach() for name, one in model.state_dict().items()}, CONFIG)
        second = {f"bias_hh_l{layer}": torch.zeros(4 * WIDTH) for layer in range(LAYERS)}
        self.lstm.load_state_dict({n[5:]: one for n, one in files.items() if n.startswith("lstm.")} | second)
        with torch.no_grad():
            self.table.weight.copy_(model.model.embed_tokens.weight)
            self.head.weight.copy_(model.head_weight)
        for layer in range(LAYERS):
            getattr(self.lstm, f"bias_hh_l{layer}").requires_grad_(False)


def twin_losses(plan: BlockPlan, steps_of_a_lap: int = 4) -> list[float]:
    """Train torch's LSTM on the streams, read from the split token by token, with h and c detached."""
    twin = Twin()
    settings = adamw.Settings()
    optimizer = torch.optim.AdamW(
        [one for one in twin.parameters() if one.requires_grad],
        lr=1e-2,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=0.0,
    )
    loader, losses = Loader(plan, batch_size=ROWS, seed=3, streams=True), []
    for lap in range(0, STEPS, steps_of_a_lap):
        begins, state = loader.order(lap * ROWS, (lap + 1) * ROWS).tolist(), None
        for step in range(min(steps_of_a_lap, STEPS - lap)):
            rows = []
            for begin in begins:
                at = (begin + step) * LENGTH
                rows.append(plan.split.read(at, at + LENGTH + 1))
            ids = torch.from_numpy(np.stack(rows).astype(np.int64))
            hidden, state = twin.lstm(twin.table(ids[:, :-1]), state)
            state = tuple(one.detach() for one in state)
            loss = nn.functional.cross_entropy(twin.head(hidden).flatten(0, 1), ids[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize(("stretch", "steps"), [(4096, 4), (16, 2)])
def test_it_trains_as_torch_s_lstm_over_the_same_streams(
    plan: BlockPlan, stretch: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose laps are an epoch, or half of one."""
    monkeypatch.setattr("lmwright.data.loader.STRETCH", stretch)
    assert Run(plan).trained().losses == pytest.approx(twin_losses(plan, steps), rel=2e-5)


def test_it_is_not_training_from_zeros(plan: BlockPlan) -> None:
    """So that the agreement above says something."""
    run = Run(plan)
    run.carried.keep = lambda: None  # type: ignore[method-assign]
    losses = run.trained().losses
    expected = twin_losses(plan)
    assert losses[0] == pytest.approx(expected[0], rel=2e-5)
    assert abs(losses[1] - expected[1]) > 1e-3


@pytest.mark.parametrize("micro", [1, 2, 3])
def test_micro_batches_change_nothing(plan: BlockPlan, micro: int) -> None:
    whole, parts = Run(plan).trained(), Run(plan, micro=micro).trained()
    assert parts.losses == pytest.approx(whole.losses, rel=1e-5)
    assert torch.allclose(parts.weights(), whole.weights(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_blocks_computed_again_go_on_from_the_same_state(plan: BlockPlan, precision: str, dropout: float) -> None:
    settings = {"precision": precision, "dropout": dropout, "micro": 2}
    plain, again = Run(plan, **settings).trained(6), Run(plan, recompute=True, **settings).trained(6)
    assert again.losses == plain.losses
    assert torch.equal(again.weights(), plain.weights())


def test_keys_and_values_of_single_tokens_are_not_computed_again() -> None:
    llama = ModelConfig.llama(vocab_size=9, hidden_size=8, num_layers=1, num_heads=1, ffn_size=8, max_positions=9)
    state, ids = KVState(llama, 1, 4), torch.zeros(1, 4, dtype=torch.int64)
    with pytest.raises(UnsupportedError, match="not computed again"):
        Context.cached(state, ids, gradients=True, recompute=True)
    with pytest.raises(UnsupportedError, match="keys, values of single tokens"):
        state.rows(0, 1)


def test_an_update_that_is_left_leaves_the_state_as_it_was(plan: BlockPlan) -> None:
    """As by a signal, after its gradient and before its update; what is saved then is what was."""
    run, other = Run(plan).trained(2), Run(plan).trained(2)
    batch = run.loader.next_batch()
    first = run.gradient(batch)
    assert run.gradient(batch) == first
    for ours, theirs in zip(run.carried._tensors().values(), other.carried._tensors().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_no_graph_and_no_past_is_held_between_updates(plan: BlockPlan) -> None:
    run = Run(plan, micro=2).trained(3)
    for tensor in run.carried._tensors().values():
        assert tensor.grad_fn is None
        assert tensor.untyped_storage().nbytes() == ROWS * WIDTH * 4
    batch = run.loader.next_batch()
    run.gradient(batch)
    for state in run.carried._after:
        for kept in state.layers:
            for tensor in kept.values():
                assert tensor.grad_fn is None
                assert tensor.untyped_storage().nbytes() == state.batch * WIDTH * 4


@pytest.mark.parametrize("steps", [2, 4, 7])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_goes_on_from_files_to_the_bit(plan: BlockPlan, tmp_path: Path, steps: int, precision: str) -> None:
    """In the midst of an epoch, at its end, and in the next."""
    run = Run(plan, precision=precision).trained(steps)
    run.carried.write(tmp_path)
    again = Run(plan, precision=precision).trained(steps)
    again.carried = carried(precision)
    again.carried.read(tmp_path)
    assert again.trained(3).losses == run.trained(3).losses
    assert torch.equal(run.weights(), again.weights())


@pytest.mark.parametrize("readers", [1, 2, 3, 5])
@pytest.mark.parametrize("writers", [1, 2, 4])
def test_rows_of_any_number_of_processes_are_read_by_any(tmp_path: Path, writers: int, readers: int) -> None:
    whole = torch.arange(2.0 * ROWS * WIDTH * LAYERS).reshape(2, LAYERS, ROWS, WIDTH)
    for rank in range(writers):
        own = carried(ranks=Ranks(rank, writers, rank, writers))
        own.begin(True)
        first, stop = own._own
        state = own.rows(0, stop - first)
        for layer in range(LAYERS):
            for number, name in enumerate(("hidden", "cell")):
                state.layers[layer][name] = whole[number, layer, first:stop]
        own.keep()
        own.write(tmp_path)
    found = []
    for rank in range(readers):
        own = carried(ranks=Ranks(rank, readers, rank, readers))
        own.read(tmp_path)
        found.append([[own._kept.layers[layer][name] for layer in range(LAYERS)] for name in ("hidden", "cell")])
    for number in range(2):
        for layer in range(LAYERS):
            assert torch.equal(torch.cat([one[number][layer] for one in found]), whole[number, layer])


def test_the_state_of_other_rows_or_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="carried"):
        carried().read(tmp_path)
    carried(rows=ROWS + 1).write(tmp_path)
    with pytest.raises(CheckpointError, match=f"is not that of {ROWS} rows of this model"):
        carried().read(tmp_path)


def test_fewer_rows_than_streams_are_refused(plan: BlockPlan) -> None:
    with pytest.raises(DataError, match="23 rows of 8 tokens are no 24 streams"):
        Loader(plan, batch_size=24, seed=0, streams=True)


def test_what_was_read_before_a_row_is_of_use(tmp_path: Path) -> None:
    """A symbol comes back twelve tokens later, in rows of eight: only a state that is taken along knows it."""
    random, filler, ask = np.random.default_rng(0), 1, 2
    symbols = 3 + random.integers(8, size=200)
    text = [token for one in symbols for token in (one, *[filler] * 10, ask, one, *[filler] * 10, ask, one)]
    plan = plan_blocks(shard_split(tmp_path, [[text]], VOCAB), LENGTH)
    losses = []
    for keeps in (True, False):
        run = Run(plan)
        if not keeps:
            run.carried.keep = lambda: None  # type: ignore[method-assign]
        losses.append(np.mean(run.trained(500).losses[-100:]))
    assert losses[0] < losses[1] - 0.05
