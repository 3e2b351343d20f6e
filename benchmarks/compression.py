"""Claim: a compressed file, header and all, is within 0.5% of the model's code length.

Held-out documents of the standard library, one after the other, go through `compress_bytes` and back, to the byte.
The model is that of a quickstart directory, or of one that is trained here for some minutes. Beside it, on the
same bytes: xz at preset 6, and the package's adaptive byte unigram (add-one counts of the text so far).

python -m benchmarks.compression [--run RUN] [--minutes M] [--bytes N]
"""

from __future__ import annotations

import argparse
import itertools
import lzma
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import row, write

BYTES = 500_000
MINUTES = 1.0


def train(out: Path, minutes: float) -> Path:
    """Run a quickstart and return its directory."""
    line = ["-m", "lmwright", "quickstart", "--out", str(out), "--minutes", str(minutes)]
    subprocess.run([sys.executable, *line], check=True, stdout=subprocess.DEVNULL)
    return out


def held_out(run: Path, most: int) -> bytes:
    """Return whole validation documents of the run's corpus, until there are `most` bytes."""
    from lmwright.data.build import Corpus
    from lmwright.runs import RunDirectory
    from lmwright.text.tokenizer import Tokenizer

    corpus = Path(RunDirectory.open(run).config()["data"]["corpus"])
    split, tokenizer = Corpus.open(corpus).split("validation"), Tokenizer.load(corpus)
    found, offsets = bytearray(), split.doc_offsets
    for start, stop in itertools.pairwise(offsets):
        if len(found) >= most:
            break
        found += tokenizer.decode(split.read(int(start) + 1, int(stop)).tolist(), skip_special=False).encode()
    return bytes(found)


def measure(run: Path, most: int) -> None:
    """Compress, bring back, and write the figures."""
    from lmwright.decode.coding.adaptive import encode_bytes
    from lmwright.recipes.compress import compress_bytes, decompress_bytes
    from lmwright.recipes.opening import open_model

    opened, text = open_model(run), held_out(run, most)
    times = [time.perf_counter()]
    made = compress_bytes(opened, text, progress=True)
    times.append(time.perf_counter())
    assert decompress_bytes(opened, made.data, progress=True) == text
    times.append(time.perf_counter())
    assert made.overhead_percent is not None
    assert made.bits_per_byte is not None
    xz = 8 * len(lzma.compress(text, preset=6)) / len(text)
    unigram = encode_bytes(text, lambda count: None)[1] / len(text)
    ours = [made.bits_per_byte]
    rates = [made.tokens / (stop - start) for start, stop in itertools.pairwise(times)]
    rows = [
        row("compressed file over the model's code length", [made.overhead_percent], "%", target="< 0.5"),
        row("held-out Python, compressed", ours, "bits/byte", peer="xz", peer_values=[xz]),
        row("held-out Python, compressed", ours, "bits/byte", peer="byte unigram", peer_values=[unigram]),
        row("compressing", [rates[0]], "tokens/s", headline=False),
        row("decompressing", [rates[1]], "tokens/s", headline=False),
    ]
    write("compression", rows, **{**made.to_dict(), "parameters": opened.network.num_parameters()})


def main() -> None:
    """Measure the run that is given, or one that is trained first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="directory of a quickstart")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of training, where no run is given")
    parser.add_argument("--bytes", type=int, default=BYTES, help="of held-out text, at least")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        measure(given.run or train(Path(place) / "run", given.minutes), given.bytes)


if __name__ == "__main__":
    main()
