"""The first complete line as a story: text -> tokenizer -> shards -> mini ladder -> law -> plan -> run -> report.

Every stage is the one that its own verb runs; this file only strings them together, and goes on where an earlier
quickstart in the same directory was stopped. All of it lies in one run directory:

    OUT/  corpus/  ladder/  law.json  checkpoints/  model/ (the export)  report.html  and the files of a run
          quickstart.json (the seconds of each stage)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from lmwright.data.build import Corpus, build_corpus
from lmwright.data.corpus import list_corpus, read_corpus
from lmwright.errors import ConfigError, UnsupportedError
from lmwright.recipes import dial, pretrain, quickstart_end, quickstart_plan
from lmwright.recipes.quickstart_plan import Mini
from lmwright.recipes.quickstart_stages import Stages
from lmwright.runs import RUN, RunDirectory, atomic_write_json, hold, read_json, refuse_existing
from lmwright.text.tokenizer import train_bpe
from lmwright.train.ranks import Ranks, of_environment

Say = Callable[[str], None]
DEFAULT_MINUTES = 2.0


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """What can be asked for.

    minutes: of training, from which model and steps follow; None: DEFAULT_MINUTES. steps: of a fixed small model,
    instead of minutes. ladder: from whose law the plan is made.
    """

    corpus: str = "stdlib"
    vocab_size: Annotated[int, Meta(ge=257)] = 4096
    minutes: Annotated[float, Meta(gt=0)] | None = None
    steps: Annotated[int, Meta(ge=1)] | None = None
    seed: Annotated[int, Meta(ge=0)] = 0
    ladder: Mini = field(default_factory=Mini)

    def __post_init__(self) -> None:
        if self.minutes is not None and self.steps is not None:
            raise ConfigError(
                f"steps = {self.steps} and minutes = {self.minutes}: give one; each decides the other"
            )


def quickstart(asked: Quickstart, out: Path, *, force: bool = False, say: Say = print) -> Path:
    """Run every stage that is not yet done in `out`; return the report's path.

    force: start anew. Raises ConfigError if `out` holds something else than a quickstart on the same corpus, and
    what the stages raise; UnsupportedError where several processes were started.
    """
    _refuse_several(of_environment())
    refuse_existing(out, RUN, force=True)
    out.mkdir(parents=True, exist_ok=True)
    with hold(out / "QUICKSTART_LOCK"):
        _refuse_other(asked, out, force, say)
        return _stages(asked, out, force, say)


def _refuse_several(ranks: Ranks) -> None:
    if ranks.several:
        error = UnsupportedError(
            f"quickstart: runs in one process, and {ranks.world_size} were started; start it without torchrun, or "
            "train by torchrun with `lmwright pretrain`"
        )
        error.told = not ranks.first
        raise error


def _stages(asked: Quickstart, out: Path, force: bool, say: Say) -> Path:
    stage = Stages(out, say)
    corpus = _corpus(asked, out, force, stage, say)
    _law(asked, corpus, out, stage, say)
    _train(asked, corpus, out, stage, say)
    from lmwright.recipes.opening import open_model

    opened = open_model(out, warn=say)
    stage("evaluate", "on all documents that were held out")
    quickstart_end.evaluate(opened, corpus, out, say)
    stage("sample", f"{quickstart_end.NUM_SAMPLES} continuations of held-out beginnings")
    quickstart_end.sample(opened, corpus, out, asked.seed, say)
    stage("export", "to a Hugging Face directory, opened with transformers where installed")
    quickstart_end.export(opened, out, say)
    stage("report", "from the files of the run alone")
    page = quickstart_end.report(out, say)
    stage.end()
    quickstart_end.compare(out, say)
    return page


def _refuse_other(asked: Quickstart, out: Path, force: bool, say: Say) -> None:
    """Refuse to go on with a run of another corpus, or with a quickstart begun with other settings."""
    if force:
        return
    if (out / "config.json").is_file():
        given = RunDirectory.open(out).config()
        if Path(given["data"]["corpus"]) != (out / "corpus").absolute():
            raise ConfigError(
                f"{out}: holds a run on {given['data']['corpus']}, which no quickstart began; choose another --out"
            )
    if not (out / "corpus" / "corpus.json").is_file():
        return
    facts = Corpus.open(out / "corpus").facts
    begun: dict[str, Any] = {"corpus": facts.source, "vocab_size": facts.vocab_size}
    if (seed := quickstart_plan.seed_of(out)) is not None:
        begun["seed"] = seed
    if (out / "config.json").is_file():
        training = read_json(out / "config.json")["training"]
        begun |= {"seed": training["seed"], "steps": training["steps"]}
        if asked.minutes is not None:
            say(f"{out}: goes on to the {training['steps']} steps it was begun with; --force starts anew")
    for name, value in begun.items():
        wanted = getattr(asked, name)
        if wanted is not None and wanted != value:
            raise ConfigError(
                f"{out}: holds a quickstart begun with {name} = {value}, not {wanted}; choose another --out, or "
                "replace it with --force"
            )


def _corpus(asked: Quickstart, out: Path, force: bool, stage: Callable[[str, str], None], say: Say) -> Corpus:
    """Gather the text, train the tokenizer and build the shards, unless that is done already."""
    directory = out / "corpus"
    if (directory / "corpus.json").is_file() and not force:
        say(f"{directory}: is built already")
        return Corpus.open(directory)
    listing = list_corpus(asked.corpus, exclude=(out,))
    stage("gather", f"{len(listing.files):,} files, {listing.total_bytes / 1e6:,.1f} MB from {asked.corpus}")
    stage("tokenizer", f"byte-level BPE of {asked.vocab_size:,} tokens")
    documents = read_corpus(listing, progress="tokenizer")
    texts = (document.text for document in documents)
    tokenizer = train_bpe(texts, asked.vocab_size, name=asked.corpus)
    stage("shards", "encode, and hold out 2% of the documents")
    if force:
        quickstart_plan.clear(out)
    facts = build_corpus(asked.corpus, tokenizer, directory, force=force, progress=True, exclude=(out,))
    for name, split in (("train", facts.train), ("validation", facts.validation)):
        say(f"{name:<14}{split.documents:,} documents, {split.tokens:,} tokens, {split.bytes:,} bytes")
    if facts.rejects:
        say(f"rejected      {sum(facts.rejects.values())}, listed in {directory / 'rejects.jsonl'}")
    return Corpus.open(directory)


def _law(asked: Quickstart, corpus: Corpus, out: Path, stage: Callable[[str, str], None], say: Say) -> None:
    """Train the mini ladder and fit its law, unless that is done already."""
    if quickstart_plan.fitted(out):
        say(f"{out / quickstart_plan.LAW}: is fitted already")
        return
    mini = asked.ladder
    stage("ladder", f"small models to foretell a larger one: {len(mini.sizes)} sizes by {mini.lengths} lengths")
    asked_for: dict[str, Any] = {"minutes": _minutes(asked), "steps": asked.steps}
    quickstart_plan.climb(mini, corpus, out, **asked_for, seed=asked.seed, say=say)
    stage("fit", "a law of the loss by parameters and tokens, tried on the largest of them first")
    quickstart_plan.fit_ladder(mini, out, say)


def _minutes(asked: Quickstart) -> float | None:
    """Return the minutes of training; None where the steps are given."""
    return asked.minutes or (DEFAULT_MINUTES if asked.steps is None else None)


def _train(asked: Quickstart, corpus: Corpus, out: Path, stage: Callable[[str, str], None], say: Say) -> None:
    """Plan by the law and train, or go on training, or find that nothing is left to train."""
    go_on = "the same command again"
    if (out / "config.json").is_file():
        stage("pretrain", "as it was planned")
        pretrain.resume(out, go_on=go_on, say=say)
    else:
        minutes = _minutes(asked)
        stage("plan", f"{minutes:g} minutes" if minutes else f"{asked.steps} steps of a small Llama")
        found = quickstart_plan.plan(corpus, out, minutes=minutes, steps=asked.steps, seed=asked.seed, say=say)
        stage("pretrain", "as planned, from random weights")
        dial.train_planned(found, out, where="quickstart", force=True, go_on=go_on, say=say)
    atomic_write_json(out / "corpus.json", read_json(corpus.directory / "corpus.json"))
