"""The end of a quickstart: the model is evaluated, heard, exported and reported on, and held against its plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lmwright.data.build import Corpus
from lmwright.data.split import TokenSplit
from lmwright.recipes import budget_words
from lmwright.runs import RunDirectory, atomic_write_json, read_json

if TYPE_CHECKING:
    from lmwright.decode.params import SamplingParams
    from lmwright.recipes.opening import Opened

Say = Callable[[str], None]
PROMPT_TOKENS, SAMPLE_TOKENS, NUM_SAMPLES = 24, 96, 4


def evaluate(opened: Opened, corpus: Corpus, out: Path, say: Say) -> None:
    """Measure the loss on all documents that were held out."""
    from lmwright.recipes import evaluate as recipe

    length = RunDirectory.open(out).config()["data"]["context_length"]
    found = recipe.evaluate(opened, corpus.directory, context_length=length, progress=True)
    atomic_write_json(out / "evaluation.json", found.to_dict())
    say(
        f"validation    {found.loss.nats_per_token:.3f} nats/token, {found.loss.bits_per_byte:.3f} bits/byte "
        f"(byte unigram {corpus.facts.byte_unigram_bits_per_byte:.3f}, xz {corpus.facts.xz_bits_per_byte:.3f})"
    )


def sample(opened: Opened, corpus: Corpus, out: Path, seed: int, say: Say) -> None:
    """Continue the beginnings of held-out documents; the first one greedily."""
    from lmwright.decode.params import SamplingParams

    greedy = SamplingParams(max_new_tokens=SAMPLE_TOKENS, temperature=0)
    sampled = SamplingParams(max_new_tokens=SAMPLE_TOKENS, temperature=0.8, top_p=0.95, seed=seed)
    samples = []
    for number, ids in enumerate(_beginnings(corpus.split("validation"))):
        samples.append(_continue(opened, ids, greedy if number == 0 else sampled))
    settings = {"first": "greedy", "others": "temperature 0.8, top_p 0.95", "max_new_tokens": SAMPLE_TOKENS}
    atomic_write_json(out / "samples.json", {"settings": settings, "samples": samples})
    shown = samples[-1]["continuation"].strip().splitlines()[:3]
    for line in shown:
        say(f"  | {line}")


def _beginnings(split: TokenSplit) -> list[list[int]]:
    """Return the first tokens of held-out documents, spread over the split, each with the token that starts it."""
    offsets = split.doc_offsets
    chosen = range(0, split.num_documents, max(1, split.num_documents // NUM_SAMPLES))
    starts = [(int(offsets[number]), int(offsets[number + 1])) for number in chosen][:NUM_SAMPLES]
    return [split.read(start, min(start + 1 + PROMPT_TOKENS, stop)).tolist() for start, stop in starts]


def _continue(opened: Opened, ids: Sequence[int], params: SamplingParams) -> dict[str, str]:
    from lmwright.decode.protocol import Request, collect
    from lmwright.decode.reference import ReferenceGenerator

    tokenizer = opened.require_tokenizer()
    generator = ReferenceGenerator(opened.network, tokenizer, eos_ids=opened.eos_ids)
    requests = [Request(prompt_ids=ids, params=params)]
    [[generation]] = collect(requests, generator.generate(requests))
    return {"prompt": tokenizer.decode(ids), "continuation": generation.text}


def export(opened: Opened, out: Path, say: Say) -> None:
    """Write a Hugging Face directory, and have transformers open it where that is installed."""
    from lmwright.recipes.export import write

    made = write(opened, out / "model", verify=True, dtype="fp32", force=True)
    assert made.verdict is not None
    atomic_write_json(out / "verification.json", made.verdict)
    verdict = {True: "transformers agrees", False: "transformers DISAGREES", None: "not verified"}
    reason = made.verdict.get("reason")
    say(f"{made.path}: {verdict[made.verdict['verified']]}" + (f": {reason}" if reason else ""))


def report(out: Path, say: Say) -> Path:
    """Write the report and say where it is."""
    from lmwright.report.page import write_both

    page, summary = write_both(out, force=True)
    say(f"summary       {summary}")
    say(f"report        {page}")
    return page


def compare(out: Path, say: Say) -> None:
    """Say what the law foretold beside what came out, measured as the ladder's own runs were."""
    budget = read_json(out / "plan.json").get("budget")
    ends = [record for record in RunDirectory.open(out).metrics() if record["kind"] == "evaluation"]
    if line := budget_words.compared(budget, ends[-1] if ends else None):
        say(line)
