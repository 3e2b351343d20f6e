"""The memory estimate against published figures, built models, what autograd keeps and what it mirrors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lmwright.errors import ConfigError
from lmwright.model import documents, square
from lmwright.model.config import ModelConfig
from lmwright.model.context import Context
from lmwright.model.language_model import LanguageModel
from lmwright.objectives import _cross_entropy
from lmwright.scaling import flops, memory
from lmwright.scaling.memory import OptimizerBytes, Run, moments, training_memory, zero_bytes
from lmwright.train.carried import Carried
from lmwright.train.ranks import Ranks

GPT2 = ModelConfig.gpt2(vocab_size=50257, hidden_size=768, num_layers=12, num_heads=12, max_positions=1024)
SMALL = {"vocab_size": 64, "hidden_size": 128, "num_layers": 4, "num_heads": 4, "max_positions": 1024}
CONFIGS = {
    "gpt2": ModelConfig.gpt2(**SMALL, ffn_size=512),
    "llama": ModelConfig.llama(**SMALL, ffn_size=256),
    "grouped": ModelConfig.llama(**SMALL, ffn_size=256, num_kv_heads=2),
    "lstm": ModelConfig.of_family("lstm", vocab_size=64, hidden_size=128, num_layers=4, max_positions=1024),
}
P = 124_439_808
TWO_MOMENTS = OptimizerBytes(state=8 * P)
RUN = Run(length=1024, batch_size=4, precision="fp32", optimizer=TWO_MOMENTS)


def test_what_the_estimate_supposes_of_model_and_loss_is_so() -> None:
    """It is free of torch and may not import them."""
    assert memory.SQUARE_LIMIT == square.LIMIT
    assert memory.PIECE == documents.GROUP
    assert memory.CHUNK == _cross_entropy.CHUNK
    assert memory.LOGITS_AT_ONCE == _cross_entropy.LOGITS_AT_ONCE


def test_zero_s_published_example() -> None:
    """Rajbhandari et al. 2020, figure 1: 7.5 billion parameters on 64 devices, in GB."""
    for stage, published in enumerate((120, 31.4, 16.6, 1.9)):
        assert zero_bytes(7.5e9, 64, stage) / 1e9 == pytest.approx(published, abs=0.05)


@pytest.mark.parametrize("devices", [1, 64])
def test_masters_gradients_and_moments_are_sixteen_bytes_a_parameter_too(devices: int) -> None:
    update = moments(GPT2, replace(RUN, batch_size=64, devices=devices, parallel="fsdp"))["update"]
    kept = update.weights + update.gradients + update.optimizer
    assert kept == pytest.approx(zero_bytes(P, devices, 3), abs=3)
    assert update.total == kept


def test_parts_of_a_known_model() -> None:
    by_moment = moments(GPT2, RUN)
    head = 50257 * 768
    for found in by_moment.values():
        assert (found.weights, found.optimizer, found.average, found.gathered) == (4 * P, 8 * P, 0, 0)
    loss, update = by_moment["loss"], by_moment["update"]
    # A chunk of 1024 positions: their logits, and hidden states and their gradients; the gradients that stay.
    assert loss.logits == 4 * 1024 * (50257 + 2 * 768) + 4 * head + 4 * 4096 * 768
    assert (loss.casts, loss.gradients, update.gradients) == (0, 0, 4 * P)
    assert training_memory(GPT2, RUN) == max(by_moment.values(), key=lambda moment: moment.total)
    half = moments(GPT2, replace(RUN, precision="bf16"))
    assert half["loss"].activations < 0.6 * loss.activations
    assert half["backward"].casts == 2 * 12 * 12 * 768**2
    assert moments(GPT2, replace(RUN, ema=True))["loss"].average == 4 * P


def test_short_rows_keep_the_square_of_attention_on_a_cpu() -> None:
    short, long = replace(RUN, length=512, precision="bf16"), replace(RUN, length=513, precision="bf16")
    row = 2 * 2 * 768 + 2 * (2 * 768 + 4 * 768 + 2 * 3072)
    assert memory.activations(GPT2, short) == 4 * 512 * (row + 2 * 12 * 512)
    assert memory.activations(GPT2, long) == 4 * 513 * (row + 4 * 12)
    packed = replace(RUN, precision="bf16", document=40)
    assert memory.activations(GPT2, packed) == 4 * 1024 * (row + 2 * 12 * 256)
    assert memory.activations(GPT2, replace(packed, document=600)) == memory.activations(
        GPT2, replace(packed, document=None)
    )
    gpu = memory.activations(GPT2, replace(short, device="cuda"))
    assert gpu == 4 * 512 * (row + 2 * 2 * 768 + 4 * 12), (
        "LayerNorm keeps fp32 rows there, and attention no square"
    )


def test_recomputing_keeps_the_blocks_inputs_and_one_block() -> None:
    plain, again = (moments(GPT2, replace(RUN, recompute=recompute)) for recompute in (False, True))
    block, inputs = memory.activations(GPT2, RUN), 4 * 4096 * 768
    assert plain["backward"].activations - again["backward"].activations == 11 * block - 12 * inputs
    assert plain["loss"].activations - again["loss"].activations == 12 * (block - inputs)


def test_micro_batches_and_copies_have_gradients_early() -> None:
    assert moments(GPT2, replace(RUN, micro_batch_size=2))["loss"].gradients == 4 * P
    assert moments(GPT2, replace(RUN, devices=2))["loss"].gradients == 4 * P
    sharded = replace(RUN, devices=2, parallel="fsdp")
    assert moments(GPT2, sharded)["loss"].gradients == 0
    assert moments(GPT2, replace(sharded, micro_batch_size=1))["loss"].gradients == 2 * P


@pytest.mark.parametrize(
    ("batch", "micro", "devices", "expected"),
    [(8, None, 1, (8, 1)), (8, 3, 1, (3, 3)), (9, None, 2, (5, 1)), (8, 4, 4, (2, 1))],
)
def test_sequences_at_once_and_micro_batches(
    batch: int, micro: int | None, devices: int, expected: tuple[int, int]
) -> None:
    run = Run(length=8, batch_size=batch, micro_batch_size=micro, devices=devices, optimizer=TWO_MOMENTS)
    assert (run.sequences, run.micro_batches) == expected


def test_shards_gather_the_root_and_two_blocks() -> None:
    run = replace(RUN, devices=4, parallel="fsdp")
    block = 12 * 768**2 + 13 * 768
    root = 4 * (P - 12 * block)
    assert moments(GPT2, run)["loss"].gathered == root
    assert moments(GPT2, run)["backward"].gathered == root + 4 * 4 * block
    assert moments(GPT2, run)["loss"].weights == P
    alone = replace(run, devices=1)
    assert moments(GPT2, alone) == moments(GPT2, replace(alone, parallel="ddp"))


def test_an_optimiser_keeps_its_state_in_parts_and_takes_its_workspace_whole_at_the_update() -> None:
    run = replace(RUN, optimizer=OptimizerBytes(state=1001, workspace=77))
    for found in moments(GPT2, run).values():
        assert found.optimizer == 1001
    shared = moments(GPT2, replace(run, devices=4, parallel="fsdp"))
    assert {name: moment.optimizer for name, moment in shared.items()} == dict.fromkeys(shared, 251)
    assert moments(GPT2, run)["update"].workspace == shared["update"].workspace == 77
    assert moments(GPT2, run)["loss"].workspace == 0


@pytest.mark.parametrize("dropout", [{}, {"residual_dropout": 0.1}, {"attention_dropout": 0.1}], ids=str)
@pytest.mark.parametrize("length", [128, 640])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", CONFIGS)
def test_activations_are_near_what_autograd_keeps(
    family: str, precision: str, length: int, dropout: dict[str, float]
) -> None:
    if family == "lstm" and "attention_dropout" in dropout:
        pytest.skip("attends to nothing")
    config = replace(CONFIGS[family], **dropout)
    model = LanguageModel(config)
    ids_BT = torch.zeros(3, length, dtype=torch.int64)
    weights = {tuple(parameter.shape) for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        shape = tuple(tensor.shape)
        if shape not in weights and shape[::-1] not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        hidden = model(
            ids_BT, Context.dense(ids_BT, dtype=dtype, generator=torch.Generator() if dropout else None)
        )
    assert hidden.requires_grad
    run = Run(length=length, batch_size=3, precision=precision, optimizer=TWO_MOMENTS)
    assert 0.95 < config.num_layers * memory.activations(config, run) / sum(kept.values()) < 1.05


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_carried_state_is_counted_of_the_rows_of_a_device_before_and_after(precision: str) -> None:
    config = CONFIGS["lstm"]
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    carried = Carried(config, batch_size=9, ranks=Ranks(1, 2, 1, 2), dtype=dtype, device="cpu")
    carried.begin(True)
    ids = torch.zeros(5, 3, dtype=torch.int64)
    with torch.no_grad():
        LanguageModel(config)(ids, Context.cached(carried.rows(0, 5), ids, dtype=dtype))
    carried.keep()
    one = sum(tensor.nbytes for tensor in carried._tensors().values())
    run = Run(length=3, batch_size=9, devices=2, precision=precision, optimizer=TWO_MOMENTS)
    for name, found in moments(config, replace(run, carries=True)).items():
        assert found.carried == 2 * one == 2 * 5 * memory.state_bytes(config, run.bytes)
        assert found.total - found.carried == moments(config, run)[name].total


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 0}, "length 0; must be from 1"),
        ({"devices": 0}, "devices 0"),
        ({"micro_batch_size": 0}, "micro_batch_size 0"),
        ({"parallel": "dp"}, "parallel 'dp'; allowed: ddp, fsdp"),
        ({"device": "tpu"}, "device 'tpu'; allowed: cpu, cuda"),
    ],
)
def test_impossible_runs_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(RUN, **changes)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="precision"):
        training_memory(GPT2, replace(RUN, precision="int8"))


def test_the_parts_add_up_to_parameters() -> None:
    for config in CONFIGS.values():
        blocks = config.num_layers * flops.block_parameters(config)
        model = LanguageModel(config)
        assert blocks == sum(parameter.numel() for parameter in model.model.layers.parameters())
