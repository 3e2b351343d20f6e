"""What holds for every file in objectives, present and future."""

from __future__ import annotations

import pytest
import torch

from lmwright import objectives, seams
from lmwright.data.batch import Batch
from lmwright.data.pack import IGNORE_INDEX
from lmwright.errors import ConfigError
from lmwright.model.config import ModelConfig
from lmwright.model.context import Context
from lmwright.model.language_model import LanguageModel

NAMES = seams.names("lmwright.objectives")
CONFIG = ModelConfig.llama(vocab_size=19, hidden_size=16, num_layers=1, num_heads=2, ffn_size=24, max_positions=8)


class LogitsKept(LanguageModel):
    """A model that keeps its hidden states with their gradients."""

    def forward(self, ids_BT: torch.Tensor, ctx: Context) -> torch.Tensor:
        self.hidden = super().forward(ids_BT, ctx)
        self.hidden.retain_grad()
        return self.hidden


def setting(seed: int = 0) -> tuple[LogitsKept, Batch]:
    model = LogitsKept(CONFIG)
    model.init_weights(torch.Generator().manual_seed(seed))
    random = torch.Generator().manual_seed(seed + 1)
    ids, labels = (torch.randint(0, CONFIG.vocab_size, (4, 8), generator=random) for _ in range(2))
    labels[torch.rand(labels.shape, generator=random) < 0.4] = IGNORE_INDEX
    return model, Batch(ids_BT=ids, labels_BT=labels)


@pytest.mark.parametrize("name", NAMES)
def test_a_masked_position_has_no_gradient_and_a_scored_one_has(name: str) -> None:
    model, batch = setting()
    objectives.load(name)(model, batch, Context.dense(batch.ids_BT)).sum.backward()
    size_BT = model.hidden.grad.abs().sum(-1)
    assert torch.equal(size_BT > 0, batch.labels_BT != IGNORE_INDEX)


@pytest.mark.parametrize("name", NAMES)
def test_the_count_is_that_of_the_targets_and_sums_add_up(name: str) -> None:
    model, batch = setting()
    loss = objectives.load(name)
    whole = loss(model, batch, Context.dense(batch.ids_BT))
    rows = [batch.rows(row, row + 1) for row in range(4)]
    parts = [loss(model, row, Context.dense(row.ids_BT)) for row in rows]
    assert whole.count == int((batch.labels_BT != IGNORE_INDEX).sum())
    assert sum(part.count for part in parts) == whole.count
    assert sum(part.sum.item() for part in parts) == pytest.approx(whole.sum.item(), rel=1e-6)
    assert whole.sum.dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_a_micro_batch_without_targets_adds_nothing(name: str) -> None:
    model, batch = setting()
    batch.labels_BT.fill_(IGNORE_INDEX)
    output = objectives.load(name)(model, batch, Context.dense(batch.ids_BT))
    output.sum.backward()
    assert (output.count, output.sum.item()) == (0, 0.0)
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_causal_is_the_negative_log_likelihood_of_the_labels() -> None:
    model, batch = setting()
    output = objectives.load("causal")(model, batch, Context.dense(batch.ids_BT))
    logits_BTV = model.logits(model(batch.ids_BT, Context.dense(batch.ids_BT))).double()
    expected = 0.0
    for b in range(4):
        for t in range(8):
            label = int(batch.labels_BT[b, t])
            if label != IGNORE_INDEX:
                expected -= (logits_BTV[b, t, label] - torch.logsumexp(logits_BTV[b, t], 0)).item()
    assert output.sum.item() == pytest.approx(expected, rel=1e-6)


def test_an_unknown_objective_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean causal"):
        objectives.load("casual")
