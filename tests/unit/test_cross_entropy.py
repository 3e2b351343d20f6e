"""The chunked loss and its gradients against the plain twin, in every precision; no [N, V] is ever made."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lmwright.data.pack import IGNORE_INDEX
from lmwright.model.config import ModelConfig
from lmwright.model.context import Context
from lmwright.model.language_model import LanguageModel
from lmwright.objectives import _cross_entropy
from lmwright.objectives._cross_entropy import summed_cross_entropy

VOCAB, WIDTH = 97, 16


def plain(hidden_BTD: Tensor, weight_VD: Tensor, labels_BT: Tensor, z_loss: float) -> tuple[Tensor, Tensor]:
    """All logits at once, in at least fp32 after the product: what the chunked loss must equal."""
    logits_NV = F.linear(hidden_BTD.flatten(0, 1), weight_VD.to(hidden_BTD.dtype))
    logits_NV = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
    labels_N = labels_BT.flatten()
    nats = F.cross_entropy(logits_NV, labels_N, ignore_index=IGNORE_INDEX, reduction="sum")
    return nats + z_loss * (logits_NV.logsumexp(-1)[labels_N != IGNORE_INDEX] ** 2).sum(), nats


def make_model(*, tied: bool = False) -> LanguageModel:
    config = ModelConfig.llama(
        vocab_size=VOCAB, hidden_size=WIDTH, num_layers=1, num_heads=2, ffn_size=16, max_positions=64,
        tie_embeddings=tied, initializer_range=0.5,
    )  # fmt: skip
    model = LanguageModel(config)
    model.init_weights(torch.Generator().manual_seed(1))
    return model


def setting(masked: float = 0.3, spread: float = 3.0) -> tuple[Tensor, Tensor]:
    """Hidden states in fp64 and labels, some of them ignored."""
    random = torch.Generator().manual_seed(2)
    hidden_BTD = spread * torch.randn(3, 20, WIDTH, generator=random, dtype=torch.float64)
    labels_BT = torch.randint(0, VOCAB, (3, 20), generator=random)
    labels_BT[torch.rand(3, 20, generator=random) < masked] = IGNORE_INDEX
    return hidden_BTD, labels_BT


@pytest.fixture(params=[(1024, 2**18), (7, 3 * VOCAB), (1, 1)], ids=["one chunk", "sevens", "single rows"])
def chunked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_cross_entropy.CHUNK, "cpu", request.param[0])
    monkeypatch.setitem(_cross_entropy.GROUP, "cpu", request.param[1])


def gradients(path: str, dtype: torch.dtype, z_loss: float, scale: float = 1.0) -> list[Tensor]:
    """Loss, nats and the gradients of scale x loss by hidden states and head weight, in fp64."""
    hidden_BTD, labels_BT = setting()
    hidden_BTD = hidden_BTD.to(dtype).requires_grad_()
    model = make_model()
    if dtype == torch.float64:
        model.double()
    weight_VD = model.head_weight
    if path == "plain":
        loss, nats = plain(hidden_BTD, weight_VD, labels_BT, z_loss)
    else:
        ctx = Context.dense(labels_BT, dtype=dtype)
        loss, nats = summed_cross_entropy(model, hidden_BTD, labels_BT, ctx, z_loss=z_loss)
    (scale * loss).backward()
    assert weight_VD.grad.dtype == weight_VD.dtype
    return [x.detach().double() for x in (loss, nats, hidden_BTD.grad, weight_VD.grad)]


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
def test_equals_the_plain_loss(dtype: torch.dtype, tolerance: float, z_loss: float) -> None:
    expected = gradients("plain", dtype, z_loss, scale=0.37)
    for found, wanted in zip(gradients("chunked", dtype, z_loss, scale=0.37), expected, strict=True):
        assert float((found - wanted).norm() / wanted.norm()) < tolerance


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
def test_bf16_is_no_further_from_fp64_than_the_plain_loss(z_loss: float) -> None:
    """Both start from the same bf16 hidden states; the exact twin takes them, too, in fp64."""
    hidden_BTD, labels_BT = setting()
    rounded_BTD = hidden_BTD.bfloat16().double().requires_grad_()
    weight_VD = make_model().head_weight.detach().bfloat16().double().requires_grad_()
    loss, nats = plain(rounded_BTD, weight_VD, labels_BT, z_loss)
    loss.backward()
    exact = [loss.detach(), nats.detach(), rounded_BTD.grad, weight_VD.grad]
    ours, theirs = (gradients(path, torch.bfloat16, z_loss) for path in ("chunked", "plain"))
    for found, peer, wanted in zip(ours, theirs, exact, strict=True):
        assert wanted is not None
        error, allowed = ((x - wanted).norm() / wanted.norm() for x in (found, peer))
        assert float(error) < 0.02
        assert float(error) <= 1.05 * float(allowed) + 1e-6


@pytest.mark.parametrize("z_loss", [0.0, 0.1])
def test_gradcheck_in_fp64(monkeypatch: pytest.MonkeyPatch, z_loss: float) -> None:
    monkeypatch.setitem(_cross_entropy.CHUNK, "cpu", 4)
    random = torch.Generator().manual_seed(3)
    hidden_ND = torch.randn(9, 5, generator=random, dtype=torch.float64, requires_grad=True)
    weight_VD = torch.randn(6, 5, generator=random, dtype=torch.float64, requires_grad=True)
    labels_N = torch.tensor([0, 5, IGNORE_INDEX, 2, 2, 1, IGNORE_INDEX, 3, 4])
    assert torch.autograd.gradcheck(
        lambda hidden, weight: _cross_entropy._WithGradients.apply(hidden, weight, labels_N, z_loss)[0],
        (hidden_ND, weight_VD),
    )


def test_what_takes_no_gradient_gets_none_and_the_other_the_same() -> None:
    hidden_BTD, labels_BT = setting()
    both = gradients("chunked", torch.float64, 0.1)
    for frozen in ("weight", "hidden"):
        model = make_model().double()
        model.requires_grad_(frozen != "weight")
        leaf_BTD = hidden_BTD.clone().requires_grad_(frozen != "hidden")
        ctx = Context.dense(labels_BT, dtype=torch.float64)
        summed_cross_entropy(model, leaf_BTD, labels_BT, ctx, z_loss=0.1)[0].backward()
        if frozen == "weight":
            assert model.head_weight.grad is None
            assert torch.equal(leaf_BTD.grad, both[2])
        else:
            assert leaf_BTD.grad is None
            assert torch.equal(model.head_weight.grad, both[3])


def test_a_tied_table_gets_the_gradients_of_both_its_uses() -> None:
    model, twin = make_model(tied=True).double(), make_model(tied=True).double()
    _, labels_BT = setting()
    ids_BT = labels_BT.clamp(min=0)
    ctx = Context.dense(ids_BT, dtype=torch.float64)
    summed_cross_entropy(model, model(ids_BT, ctx), labels_BT, ctx)[0].backward()
    plain(twin(ids_BT, Context.dense(ids_BT, dtype=torch.float64)), twin.head_weight, labels_BT, 0.0)[0].backward()
    for found, wanted in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-10, atol=1e-12)


def test_a_label_that_is_nearly_certain_keeps_its_gradient_in_bf16() -> None:
    """1 - share is about 1e-3 here: rounded to bf16 before the subtraction it would be 0 or 4e-3."""
    hidden_ND = torch.tensor([[1.0]]).bfloat16().requires_grad_()
    weight_VD = torch.tensor([[7.0], [0.0]], requires_grad=True)
    loss, _ = _cross_entropy._WithGradients.apply(hidden_ND, weight_VD, torch.tensor([0]), 0.0)
    loss.backward()
    share = torch.tensor(7.0).sigmoid().item()
    assert weight_VD.grad[0].item() == pytest.approx(share - 1.0, rel=2**-8)


def test_evaluation_gives_the_same_loss_in_fp64() -> None:
    model = make_model()
    _, labels_BT = setting()
    ids_BT = labels_BT.clamp(min=0)
    ctx = Context.dense(ids_BT)
    trained = summed_cross_entropy(model, model(ids_BT, ctx), labels_BT, ctx, z_loss=0.1)[1]
    with torch.no_grad():
        evaluated = summed_cross_entropy(model, model(ids_BT, ctx), labels_BT, ctx)[1]
    assert (trained.dtype, evaluated.dtype) == (torch.float32, torch.float64)
    assert trained.item() == pytest.approx(evaluated.item(), rel=1e-6)


def test_a_second_backward_adds_the_same_again() -> None:
    hidden_BTD, labels_BT = setting()
    leaf_BTD = hidden_BTD.requires_grad_()
    loss, _ = summed_cross_entropy(
        make_model().double(), leaf_BTD, labels_BT, Context.dense(labels_BT, dtype=torch.float64)
    )
    loss.backward(retain_graph=True)
    once_BTD = leaf_BTD.grad.clone()
    loss.backward(torch.tensor(2.0, dtype=torch.float64))
    torch.testing.assert_close(leaf_BTD.grad, 3.0 * once_BTD)


class Largest(TorchDispatchMode):
    """Watches the largest tensor that any operation returns."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


@pytest.mark.parametrize("path", ["plain", "chunked"])
def test_the_logits_of_the_whole_batch_never_exist(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_cross_entropy.LOGITS_AT_ONCE, "cpu", 25 * VOCAB)
    with Largest() as seen:
        gradients(path, torch.float32, 0.1)
    scored = int((setting()[1] != IGNORE_INDEX).sum())
    assert scored > 25
    assert seen.numel == (60 * VOCAB if path == "plain" else 25 * VOCAB)
