"""What a model is made of: the one description from which it is built, counted, saved and planned.

Free of torch, so that a plan or a bad flag never pays for importing it. A config that no Hugging Face
family can express is refused here, not when the trained model is saved. Knows nothing of training.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, Literal

from msgspec import Meta

from lmwright import seams
from lmwright.errors import ConfigError

Size = Annotated[int, Meta(ge=1)]
Rate = Annotated[float, Meta(ge=0.0, lt=1.0)]

# Far above any model that exists; what is larger is a damaged or hostile file, and would exhaust memory.
LIMITS = {
    "vocab_size": 2**24,
    "hidden_size": 2**17,
    "num_layers": 1024,
    "num_heads": 2**12,
    "num_kv_heads": 2**12,
    "head_dim": 2**13,
    "ffn_size": 2**20,
    "max_positions": 2**25,
}
CHOICES = {
    "layout": ("pre_norm", "plain"),
    "position": ("rope", "learned", "none"),
    "norm": ("rmsnorm", "layernorm"),
    "ffn": ("swiglu", "gelu"),
    "activation": ("silu", "gelu", "gelu_tanh"),
}


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Llama-3's stretch of the rotary frequencies (Llama 3 report, section 3.4; see `model.rope`)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: Size

    def __post_init__(self) -> None:
        where = "model.rope_scaling"
        _whole(where, "original_max_positions", self.original_max_positions, LIMITS["max_positions"])
        for name in ("factor", "low_freq_factor", "high_freq_factor"):
            _real(where, name, getattr(self, name), low=0.0, high=1e6, open_low=True)
        if self.factor < 1.0:
            raise ConfigError(f"{where}.factor: {self.factor}; must be at least 1")
        if self.high_freq_factor <= self.low_freq_factor:
            raise ConfigError(
                f"{where}: high_freq_factor {self.high_freq_factor} must exceed "
                f"low_freq_factor {self.low_freq_factor}"
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A decoder. The defaults are Llama's; `ModelConfig.gpt2(...)` gives GPT-2's.

    layout: pre_norm is the transformer's, x + mixer(norm(x)) then x + ffn(norm(x)), and a last norm; plain is
    mixers one on the other with nothing between, and there ffn_size is 0.

    num_kv_heads None means num_heads (multi-head attention); 1 is multi-query, between is grouped-query.
    head_dim None means hidden_size / num_heads; both are stored as None where they are given at that value, so
    read `kv_heads` and `dim_per_head`. Dropout rates act only where a context carries a generator.
    Raises ConfigError, naming the field, what was given and what is allowed.
    """

    family: str = "llama"
    layout: Literal["pre_norm", "plain"] = "pre_norm"
    mixer: str = "attention"
    feed_forward: str = "dense"
    vocab_size: Size
    hidden_size: Size
    num_layers: Size
    num_heads: Size
    num_kv_heads: Size | None = None
    head_dim: Size | None = None
    ffn_size: Annotated[int, Meta(ge=0)]
    max_positions: Size
    position: Literal["rope", "learned", "none"] = "rope"
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    norm_eps: float = 1e-5
    ffn: Literal["swiglu", "gelu"] = "swiglu"
    activation: Literal["silu", "gelu", "gelu_tanh"] = "silu"
    attention_bias: bool = False
    ffn_bias: bool = False
    tie_embeddings: bool = False
    embedding_dropout: Rate = 0.0
    attention_dropout: Rate = 0.0
    residual_dropout: Rate = 0.0
    initializer_range: float = 0.02
    bos_id: int | None = None
    eos_id: int | None = None

    def __post_init__(self) -> None:
        where = "model"
        for name, limit in LIMITS.items():
            value = getattr(self, name)
            if value is None and name in ("num_kv_heads", "head_dim"):
                continue
            bare = name == "ffn_size" and self.layout == "plain"
            _whole(where, name, value, 0 if bare else limit, least=0 if bare else 1)
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{where}.{name}: {getattr(self, name)!r}; allowed: {', '.join(allowed)}")
        for name in ("attention_bias", "ffn_bias", "tie_embeddings"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{where}.{name}: {getattr(self, name)!r}; must be true or false")
        for name in ("embedding_dropout", "attention_dropout", "residual_dropout"):
            _real(where, name, getattr(self, name), low=0.0, high=1.0, open_high=True)
        _real(where, "rope_theta", self.rope_theta, low=0.0, high=1e15, open_low=True)
        _real(where, "norm_eps", self.norm_eps, low=0.0, high=1.0, open_low=True)
        _real(where, "initializer_range", self.initializer_range, low=0.0, high=10.0)
        for name in ("bos_id", "eos_id"):
            value = getattr(self, name)
            if value is not None:
                _whole(where, name, value, self.vocab_size - 1, least=0)
        self._check_heads()
        # Stated defaults become None again, so that equal models have equal configs, and
        # `dataclasses.replace` with another hidden_size or num_heads does not keep a stale head_dim.
        if self.num_kv_heads == self.num_heads:
            object.__setattr__(self, "num_kv_heads", None)
        if self.head_dim is not None and self.head_dim * self.num_heads == self.hidden_size:
            object.__setattr__(self, "head_dim", None)
        self._check_parts()

    def _check_heads(self) -> None:
        if self.head_dim is None and self.hidden_size % self.num_heads:
            raise ConfigError(
                f"model.hidden_size: {self.hidden_size} is not a multiple of num_heads {self.num_heads}; "
                "change one of them, or set head_dim"
            )
        if self.num_heads % self.kv_heads:
            raise ConfigError(f"model.num_kv_heads: {self.kv_heads} does not divide num_heads {self.num_heads}")
        if self.position == "rope" and self.dim_per_head % 2:
            raise ConfigError(
                f"model.head_dim: {self.dim_per_head}; rotary positions turn pairs, so it must be even"
            )

    def _check_parts(self) -> None:
        if self.rope_scaling is not None and self.position != "rope":
            raise ConfigError("model.rope_scaling: has no effect without rotary positions; remove it")
        if self.rope_scaling is not None and not isinstance(self.rope_scaling, RopeScaling):
            raise ConfigError(f"model.rope_scaling: {self.rope_scaling!r}; must be a RopeScaling")
        for field, folder in (("family", "families"), ("mixer", "mixers"), ("feed_forward", "ffn")):
            allowed = seams.names(f"lmwright.model.{folder}")
            if getattr(self, field) not in allowed:
                raise ConfigError(f"model.{field}: {getattr(self, field)!r}; allowed: {', '.join(allowed)}")
        seams.load("lmwright.model.families", self.family).check(self)

    @property
    def kv_heads(self) -> int:
        """Number of key and value heads, G."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def dim_per_head(self) -> int:
        """Width of one head, K."""
        return self.hidden_size // self.num_heads if self.head_dim is None else self.head_dim

    @property
    def recurrent(self) -> bool:
        """Whether all of the past is in a state of fixed size, so that it can be taken along without end."""
        return self.layout == "plain"

    @classmethod
    def of_family(cls, family: str, **values: Any) -> ModelConfig:
        """A config with the family's usual parts; `values` go over them. ConfigError on unknown fields.

        ffn_size and initializer_range may be left out; see `usual_ffn_size` and `usual_spread`.
        """
        chosen = {"family": family, **seams.load("lmwright.model.families", family).defaults(), **values}
        width = chosen.get("hidden_size")
        if isinstance(width, int):
            chosen.setdefault("ffn_size", usual_ffn_size(width, chosen.get("ffn", cls.ffn)))
            chosen.setdefault("initializer_range", usual_spread(width))
        unknown = sorted(set(chosen) - {field.name for field in fields(cls)})
        if unknown:
            raise ConfigError(f"model: unknown field {unknown[0]!r}")
        needed = [field.name for field in fields(cls) if field.default is MISSING and field.name not in chosen]
        if needed:
            raise ConfigError(f"model: {', '.join(needed)} must be given, too, as {needed[0]}=...")
        return cls(**chosen)

    @classmethod
    def llama(cls, **values: Any) -> ModelConfig:
        """RoPE, RMSNorm, SwiGLU, no biases, untied head."""
        return cls.of_family("llama", **values)

    @classmethod
    def gpt2(cls, **values: Any) -> ModelConfig:
        """Learned positions, LayerNorm, tanh-GELU, biases, tied head."""
        return cls.of_family("gpt2", **values)


def usual_ffn_size(hidden_size: int, ffn: str) -> int:
    """4 D for two matrices; for SwiGLU's three 8/3 D, of equal size, rounded up to a multiple of 64."""
    return -(-8 * hidden_size // (3 * 64)) * 64 if ffn == "swiglu" else 4 * hidden_size


def usual_spread(hidden_size: int) -> float:
    """Of the first weights: sqrt(2 / 5D) (SmallInit: Nguyen & Salazar 2019, arXiv:1910.05895).

    At GPT-2's width that is 0.023, and GPT-2 took 0.02. At any width 0.02 starves narrow models: 96 wide, it cost
    0.2 nats and half the rate (docs/log.md).
    """
    return math.sqrt(2 / (5 * max(hidden_size, 1)))


def _whole(where: str, name: str, value: object, limit: int, *, least: int = 1) -> None:
    """ConfigError unless `value` is an int (not a bool) in [least, limit]."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= limit:
        raise ConfigError(f"{where}.{name}: {_short(value)}; must be a whole number from {least} to {limit}")


def _real(
    where: str,
    name: str,
    value: object,
    *,
    low: float,
    high: float,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    """ConfigError unless `value` is a finite number between the bounds."""
    fine = isinstance(value, int | float) and not isinstance(value, bool)
    if fine:
        try:
            number = float(value)  # type: ignore[arg-type]
        except OverflowError:
            number = math.inf
        fine = math.isfinite(number) and low <= number <= high
        fine = fine and not (open_low and number == low) and not (open_high and number == high)
    if not fine:
        left, right = "(" if open_low else "[", ")" if open_high else "]"
        raise ConfigError(f"{where}.{name}: {_short(value)}; must be a number in {left}{low}, {high}{right}")


def _short(value: object) -> str:
    """repr, cut: a hostile file may hold a number with a million digits."""
    if isinstance(value, int) and value.bit_length() > 256:
        return "a number of more than 77 digits"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
