"""Every file in model/families, mixers and ffn keeps its folder's contract; a new file is tested unasked."""

from __future__ import annotations

import dataclasses
import json
import os
import random

import pytest
import torch
from safetensors.torch import load_file, save_file

from lmwright import seams
from lmwright.config import to_dict
from lmwright.errors import CheckpointError, ConfigError
from lmwright.model.checkpoint import load_model, save_model
from lmwright.model.config import ModelConfig
from lmwright.model.config_io import dump_config, parse_config
from lmwright.model.context import Context
from lmwright.model.language_model import LanguageModel
from lmwright.model.state import KVState, declared

FAMILIES = seams.names("lmwright.model.families")
SIZES = {
    "vocab_size": 83, "hidden_size": 24, "num_layers": 2, "num_heads": 4, "ffn_size": 40, "max_positions": 128
}  # fmt: skip


def sizes(family: str) -> dict[str, int]:
    """SIZES, as far as the family does not say itself what it has."""
    fixed = seams.load("lmwright.model.families", family).defaults()
    return {name: fixed.get(name, size) for name, size in SIZES.items()}


def variants(family: str) -> list[ModelConfig]:
    """The family's usual config, and every single change of it that the family can express."""
    usual = ModelConfig.of_family(family, **sizes(family))
    found = [usual]
    changes = [
        {"tie_embeddings": not usual.tie_embeddings},
        {"attention_bias": not usual.attention_bias},
        {"ffn_bias": not usual.ffn_bias},
        {"num_kv_heads": 2},
        {"num_kv_heads": 1},
        {"head_dim": 10},
        *({"activation": name} for name in ("silu", "gelu", "gelu_tanh")),
        {"bos_id": 3, "eos_id": 4},
        {"norm_eps": 1e-3},
        {"attention_dropout": 0.1, "residual_dropout": 0.2, "embedding_dropout": 0.3},
    ]
    for change in changes:
        try:
            found.append(dataclasses.replace(usual, **change))
        except ConfigError:
            continue
    return found


CASES = [pytest.param(config, id=f"{name}-{i}") for name in FAMILIES for i, config in enumerate(variants(name))]


def filled(config: ModelConfig) -> LanguageModel:
    model = LanguageModel(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            offset = 1.0 if parameter.dim() == 1 and name.endswith("weight") else 0.01
            parameter.normal_(0.0, 0.3, generator=generator).add_(offset)
    return model


def test_both_first_families_are_listed():
    assert {"gpt2", "llama"} <= set(FAMILIES)
    with pytest.raises(ConfigError, match="allowed: gpt2, llama"):
        seams.load("lmwright.model.families", "nonesuch")


@pytest.mark.parametrize("config", CASES)
def test_a_config_knows_without_torch_what_its_mixer_keeps(config):
    """A recurrent one, whose state training takes along, keeps all per sequence, and nothing per token."""
    per_token, per_sequence = declared(config)
    assert config.recurrent is (bool(per_sequence) and not per_token)


@pytest.mark.parametrize("config", CASES)
def test_config_round_trip(config):
    fields = json.loads(json.dumps(dump_config(config), allow_nan=False))
    assert parse_config(fields, "test") == config
    assert fields["model_type"] == seams.load("lmwright.model.families", config.family).MODEL_TYPE


@pytest.mark.parametrize("config", CASES)
def test_every_weight_survives_the_files(config, tmp_path):
    model = filled(config)
    save_model(model, tmp_path / "m", max_shard_bytes=9000)
    again = load_model(tmp_path / "m")
    assert to_dict(again.config) == to_dict(config)
    names = dict(again.named_parameters())
    assert list(names) == [name for name, _ in model.named_parameters()]
    for name, parameter in model.named_parameters():
        assert torch.equal(names[name], parameter), name
        assert names[name].requires_grad


@pytest.mark.parametrize("config", CASES)
def test_renames_are_inverse_and_work_on_shapes_alone(config):
    family = seams.load("lmwright.model.families", config.family)
    state = {name: tensor.detach() for name, tensor in filled(config).state_dict().items()}
    in_file = family.to_file(state, config)
    assert [family.canonical(name) for name in in_file] == list(in_file)
    back: dict[str, torch.Tensor] = {}
    for name, tensor in in_file.items():  # one at a time, as the loader does
        back.update(family.to_memory({name: tensor}, config))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    with torch.device("meta"):
        shapes = family.to_file(LanguageModel(config).state_dict(), config)
    assert {n: t.shape for n, t in shapes.items()} == {n: t.shape for n, t in in_file.items()}


@pytest.mark.parametrize("config", CASES)
def test_transformers_or_a_twin_agrees(config, tmp_path):
    model, family = filled(config), seams.load("lmwright.model.families", config.family)
    save_model(model, tmp_path / "m")
    if hasattr(family, "twin"):  # transformers has no such class: the family brings what answers in its place
        theirs = family.twin(tmp_path / "m")
    else:
        transformers = pytest.importorskip("transformers")
        opened = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32).eval()
        theirs = lambda ids: opened(ids).logits  # noqa: E731
    ids = torch.randint(0, 83, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(ids)
        got = model.logits(model(ids, Context.dense(ids)))
    assert (got - expected).abs().max() < 2e-5 * max(1.0, expected.abs().max().item())


@pytest.mark.parametrize("config", CASES)
def test_cached_equals_uncached_to_the_bit_where_calls_are_exact(config):
    model, exact = filled(config), not declared(config)[1]
    ids = torch.randint(0, 83, (2, 50), generator=torch.Generator().manual_seed(2))
    ctx = Context.dense(ids, exact=exact)
    expected = model.logits(model(ids, ctx), ctx)
    state, draw, place = KVState(config, 2, 50), random.Random(0), 0
    while place < 50:
        part = ids[:, place : place + draw.choice([1, 1, 3, 17])]
        ctx = Context.cached(state, part)
        got, wanted = model.logits(model(part, ctx), ctx), expected[:, place : place + part.shape[1]]
        assert ctx.exact is exact
        assert torch.equal(got, wanted) if exact else torch.allclose(got, wanted, rtol=0, atol=1e-5)
        place += part.shape[1]


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("config", CASES)
def test_nothing_looks_ahead(config, train):
    model = filled(config)
    ids = torch.randint(0, 83, (1, 30), generator=torch.Generator().manual_seed(3))
    altered = ids.clone()
    altered[:, 20:] = (altered[:, 20:] + 1) % 83
    with torch.set_grad_enabled(train):
        before, after = (model(x, Context.dense(x)).detach() for x in (ids, altered))
    assert torch.equal(before[:, :20], after[:, :20])
    assert not torch.equal(before[:, 20:], after[:, 20:])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_tied_head_may_be_stored_but_not_differ(name, tmp_path):
    """By the names that the family gives of its table and its head."""
    family = seams.load("lmwright.model.families", name)
    model = filled(ModelConfig.of_family(name, **{**sizes(name), "tie_embeddings": True}))
    save_model(model, tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    tensors = load_file(file)
    assert family.HEAD not in tensors
    for shift in (0.0, 1.0):
        save_file({**tensors, family.HEAD: tensors[family.EMBEDDING] + shift}, file, {"format": "pt"})
        if shift:
            with pytest.raises(CheckpointError, match=r"tied.*" + family.EMBEDDING):
                load_model(tmp_path / "m")
        else:
            load_model(tmp_path / "m")


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
@pytest.mark.parametrize("limit", [9000, 10**9])
def test_weights_are_as_readable_as_the_other_files(mask, limit, tmp_path):
    before = os.umask(mask)
    try:
        save_model(filled(ModelConfig.llama(**SIZES)), tmp_path / "m", max_shard_bytes=limit)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "m").iterdir()} == {0o666 & ~mask}
