"""What a ladder trains: a grid of small models and lengths from which a scaling law is fitted. Torch-free.

Each size is one trunk of constant rate, lengthened piece by piece, and a cool-down at the end of each piece. With
k updates as the unit, piece j ends after 4 k 2^j updates, and the run that forks there lets its rate down over
k 2^j more: it is the whole run of 5 k 2^j updates, a fifth of it decay (Hägele et al. 2024, arXiv:2405.18392).
J + 1 lengths so cost k (4 2^J + 2^(J+1) - 1) updates instead of 5 k (2^(J+1) - 1): for long ladders six tenths.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from lmwright.config import to_dict
from lmwright.data.build import Corpus
from lmwright.errors import ConfigError
from lmwright.model.config import ModelConfig
from lmwright.scaling.flops import Convention, count_parameters, flops_per_token
from lmwright.scaling.planning import hyper
from lmwright.scaling.planning.shape import counted, shape
from lmwright.scaling.sweep import Swept

FEWEST_UNITS = 4  # updates in the shortest decay
MOST_WARMUP = 2  # units, of the four that every trunk has
MOST_SIZES, MOST_LENGTHS, MOST_SEEDS = 20, 8, 10
USUAL_RATIO = 5.0  # tokens for each parameter of the shortest runs


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """What can be asked for.

    sizes: parameters, counted by `convention`. tokens_per_parameter: of the shortest run of each size, None: 5;
    each of the `lengths` has twice the tokens of the one before. tokens: in place of that, of the shortest run of
    all sizes alike: a grid with right angles, which tells the terms of a law apart with less compute. seeds: each
    trains the whole grid. sweep: at so many of the smallest sizes rate and batch are measured first.
    """

    corpus: str
    sizes: tuple[Annotated[float, Meta(gt=0)], ...]
    tokens_per_parameter: Annotated[float, Meta(gt=0)] | None = None
    tokens: Annotated[float, Meta(gt=0)] | None = None
    lengths: Annotated[int, Meta(ge=1, le=MOST_LENGTHS)] = 3
    family: str = "llama"
    context_length: Annotated[int, Meta(ge=2)] = 256
    convention: Convention = "chinchilla"
    seeds: tuple[Annotated[int, Meta(ge=0)], ...] = (0,)
    sweep: Annotated[int, Meta(ge=0, le=MOST_SIZES)] = 1

    def __post_init__(self) -> None:
        for name, given, most in (("sizes", self.sizes, MOST_SIZES), ("seeds", self.seeds, MOST_SEEDS)):
            if not 1 <= len(given) <= most or len(set(given)) < len(given):
                listed = ", ".join(f"{value:g}" for value in given) or "none"
                raise ConfigError(f"ladder: {name} {listed}: must be 1 to {most}, each another one")
        if self.sweep > len(self.sizes):
            raise ConfigError(f"ladder: sweep = {self.sweep}, more than its {len(self.sizes)} sizes")
        if self.tokens is not None and self.tokens_per_parameter is not None:
            raise ConfigError(
                f"ladder: tokens = {self.tokens:g} and tokens_per_parameter = {self.tokens_per_parameter:g} both "
                "say how long the shortest runs are; give one"
            )

    def shortest(self, parameters: int) -> float:
        """Return the tokens of the shortest run of a size."""
        return self.tokens or (self.tokens_per_parameter or USUAL_RATIO) * parameters


@dataclass(frozen=True, kw_only=True)
class Trunk:
    """One size with one seed. unit: updates k. settings: of hyper.choose at the middle length."""

    name: str
    config: ModelConfig
    seed: int
    length: int
    lengths: int
    unit: int
    settings: hyper.Settings

    @property
    def warmup(self) -> int:
        """Updates of warm-up, so few that every run of the trunk has them behind it when it decays."""
        return min(self.settings.warmup_steps, MOST_WARMUP * self.unit)

    @property
    def parameters(self) -> int:
        """All parameters."""
        return count_parameters(self.config).total

    def piece(self, number: int) -> int:
        """Return the updates after which piece `number` of the trunk ends."""
        return 4 * self.unit << number

    def steps(self, number: int) -> int:
        """Return the updates of the run that forks there, its decay included."""
        return 5 * self.unit << number

    def tokens(self, number: int) -> int:
        """Return the tokens that run is trained on."""
        return self.steps(number) * self.settings.batch_size * self.length

    def flops(self, number: int) -> float:
        """Return the training FLOPs of that run, as if it had no trunk."""
        return flops_per_token(self.config, self.length) * self.tokens(number)

    @property
    def updates(self) -> int:
        """Updates that are made for all runs of the trunk together."""
        return self.piece(self.lengths - 1) + sum(self.unit << number for number in range(self.lengths))

    @property
    def cost(self) -> float:
        """FLOPs that are spent for all runs of the trunk together."""
        return flops_per_token(self.config, self.length) * self.updates * self.settings.batch_size * self.length

    def run_name(self, number: int) -> str:
        """Return the name of the run of that length."""
        return f"{self.name}-{self.steps(number)}"

    def steady(self) -> dict[str, Any]:
        """Return the schedule of the trunk."""
        return {"name": "constant", "warmup_steps": self.warmup}

    def decaying(self, number: int) -> dict[str, Any]:
        """Return the schedule of a run that ends."""
        return {**hyper.schedule(self.warmup), "decay_steps": self.unit << number}

    def run_file(
        self, corpus: str, *, steps: int, schedule: dict[str, Any], rate: float, evaluate: bool = True
    ) -> dict[str, Any]:
        """Return the settings of a run as `pretrain` takes them. evaluate: on validation text, at its end."""
        training = {
            "steps": steps,
            "batch_size": self.settings.batch_size,
            "optimizer": {"name": "adamw", "lr": rate, "weight_decay": self.settings.weight_decay},
            "schedule": schedule,
            "seed": self.seed,
            "threads": 1,
            "compile": False,
            "eval_every": steps if evaluate else 0,
            "checkpoint_every": self.piece(0),
            "keep_checkpoints": 1,
            "keep_best": False,
        }
        data = {"corpus": corpus, "context_length": self.length}
        return {"architecture": to_dict(self.config), "data": data, "training": training}


def trunks(asked: Ladder, corpus: Corpus, rules: Swept | None = None) -> list[Trunk]:
    """Return the trunks, the largest last. rules: of the sweep; None: published priors.

    Raises ConfigError where sizes fall together, or a length is too short to have a decay.
    """
    found: dict[ModelConfig, str] = {}
    made = []
    for size in sorted(asked.sizes):
        config = _model(asked, corpus, size)
        if config in found:
            raise ConfigError(
                f"ladder: sizes {found[config]} and {label(size)} are the same model, of "
                f"{counted(config, asked.convention):,} parameters; name sizes further apart"
            )
        found[config] = label(size)
        for seed in asked.seeds:
            name = label(size) + (f"-seed{seed}" if len(asked.seeds) > 1 else "")
            made.append(_trunk(asked, name, config, size, seed, rules, corpus.facts.train.tokens))
    return made


def label(size: float) -> str:
    """Return a size in words that can name a directory: 250k, 1.5m, 1b."""
    for unit, letter in ((1e9, "b"), (1e6, "m"), (1e3, "k")):
        if float(f"{size:.3g}") >= unit:
            return f"{size / unit:.4g}{letter}"
    return f"{size:.4g}"


def sizes_between(smallest: float, largest: float, count: int) -> tuple[float, ...]:
    """Return so many sizes from the smallest to the largest, each as many times the one before."""
    if count < 2 or not smallest < largest:
        raise ConfigError(
            f"ladder: {count} sizes from {label(smallest)} to {label(largest)}; give 2 or more, the smallest first"
        )
    return tuple(
        float(f"{smallest * (largest / smallest) ** (number / (count - 1)):.3g}") for number in range(count)
    )


def open_corpus(asked: Ladder) -> Corpus:
    """Open the corpus of a ladder, which needs text that is held out. Raises DataError if it has none."""
    corpus = Corpus.open(Path(asked.corpus))
    corpus.split("validation")
    return corpus


def _model(asked: Ladder, corpus: Corpus, size: float) -> ModelConfig:
    tokenizer = corpus.tokenizer
    return shape(
        size,
        vocab_size=tokenizer.vocab_size,
        length=asked.context_length,
        convention=asked.convention,
        family=asked.family,
        tie_embeddings=True,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
    ).config


def _trunk(
    asked: Ladder, name: str, config: ModelConfig, size: float, seed: int, rules: Swept | None, corpus_tokens: int
) -> Trunk:
    shortest = asked.shortest(counted(config, asked.convention))
    middle = shortest * 2 ** ((asked.lengths - 1) // 2)
    length = asked.context_length
    settings = hyper.choose(config, middle, length, rules=rules)
    if settings.batch_size * length > corpus_tokens:
        raise ConfigError(
            f"ladder: runs of {shortest:.3g} tokens and more of the size {label(size)} would have updates of "
            f"{settings.batch_size * length:.3g}, and the corpus has {corpus_tokens:,}; ask for fewer tokens"
        )
    unit = round(shortest / (5 * settings.batch_size * length))
    if unit < FEWEST_UNITS:
        least = 5 * FEWEST_UNITS * settings.batch_size * length
        raise ConfigError(
            f"ladder: the shortest run of the size {label(size)} has {shortest:,.0f} tokens, fewer than the "
            f"{least:,} of a run with a decay; raise --tokens-per-parameter, or --tokens"
        )
    return Trunk(
        name=name, config=config, seed=seed, length=length, lengths=asked.lengths, unit=unit, settings=settings
    )
