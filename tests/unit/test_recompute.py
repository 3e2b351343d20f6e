"""Activation checkpointing: the same loss and gradients to the bit, draws included, from a block's input alone."""

from __future__ import annotations

import pytest
import torch

from lmwright.data.batch import Batch
from lmwright.model.config import ModelConfig
from lmwright.model.context import Context
from lmwright.model.language_model import Block, LanguageModel
from lmwright.objectives import causal

LENGTH = 24
CONFIGS = {
    "llama": ModelConfig.llama(
        vocab_size=31, hidden_size=32, num_layers=3, num_heads=4, num_kv_heads=2, ffn_size=48,
        max_positions=LENGTH, initializer_range=0.3, residual_dropout=0.2, attention_dropout=0.1,
        embedding_dropout=0.1,
    ),
    "gpt2": ModelConfig.gpt2(
        vocab_size=31, hidden_size=32, num_layers=3, num_heads=4, max_positions=LENGTH, initializer_range=0.3,
        residual_dropout=0.2, attention_dropout=0.1, embedding_dropout=0.1,
    ),
}  # fmt: skip


def run(
    name: str, *, recompute: bool, dropout: bool, packed: bool, dtype: torch.dtype, backward: int = 1
) -> tuple[list[torch.Tensor], torch.Tensor | None]:
    """Loss and gradients of one batch, and what the generator draws next."""
    model = LanguageModel(CONFIGS[name])
    model.init_weights(torch.Generator().manual_seed(0))
    random = torch.Generator().manual_seed(1)
    ids_BT = torch.randint(0, 31, (3, LENGTH), generator=random)
    positions = torch.arange(LENGTH)[None]
    segments = (positions >= 10).long().expand(3, -1) if packed else None
    generator = torch.Generator().manual_seed(2) if dropout else None
    ctx = Context.dense(ids_BT, segments=segments, dtype=dtype, generator=generator, recompute=recompute)
    output = causal.loss(model, Batch(ids_BT=ids_BT, labels_BT=ids_BT.roll(-1, 1)), ctx, z_loss=1e-3)
    for number in range(backward):
        output.sum.backward(retain_graph=number < backward - 1)
    found = [output.sum.detach(), *(parameter.grad for parameter in model.parameters())]
    return found, None if generator is None else torch.rand(5, generator=generator)


@pytest.mark.parametrize("backward", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_equals_the_plain_pass_to_the_bit(
    name: str, dropout: bool, packed: bool, dtype: torch.dtype, backward: int
) -> None:
    settings = {"dropout": dropout, "packed": packed, "dtype": dtype, "backward": backward}
    plain, next_plain = run(name, recompute=False, **settings)
    again, next_again = run(name, recompute=True, **settings)
    for one, other in zip(plain, again, strict=True):
        assert torch.equal(one, other)
    if dropout:
        assert torch.equal(next_plain, next_again), "the generator goes on from where the forward pass left it"


def test_each_block_is_computed_twice_and_only_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    forward = Block.forward
    monkeypatch.setattr(
        Block, "forward", lambda self, x, ctx, layer: (calls.append(layer), forward(self, x, ctx, layer))[1]
    )
    run("llama", recompute=True, dropout=False, packed=False, dtype=torch.float32)
    assert calls == [0, 1, 2, 2, 1, 0]
    calls.clear()
    ids_BT = torch.zeros(1, 4, dtype=torch.int64)
    with torch.no_grad():
        LanguageModel(CONFIGS["llama"])(ids_BT, Context.dense(ids_BT, recompute=True))
    assert calls == [0, 1, 2]


def test_a_block_keeps_its_input_alone() -> None:
    """All that the graph saves but the weights, by storages; a block's input is held as its argument."""
    config = CONFIGS["llama"]
    kept: dict[bool, int] = {}
    for recompute in (False, True):
        model = LanguageModel(config)
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        ids_BT = torch.zeros(2, LENGTH, dtype=torch.int64)
        storages: dict[int, int] = {}

        def note(tensor: torch.Tensor, storages: dict[int, int] = storages) -> torch.Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            model(ids_BT, Context.dense(ids_BT, recompute=recompute)).sum()
        kept[recompute] = sum(size for place, size in storages.items() if place not in weights)
    token = 2 * LENGTH * 4
    assert kept[True] <= token * (config.num_layers + 3) * config.hidden_size
    assert kept[False] > 3 * kept[True]
