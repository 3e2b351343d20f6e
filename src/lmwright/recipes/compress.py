"""Compression as a story: bytes -> segments -> tokens -> a probability for each -> arithmetic code, and back.

What the model gives probability p costs -log2(p) bits, so the file is as long as the loss is low: bits per byte,
made tangible. Every sequence of bytes comes back, to the byte: what is no text, or what the tokenizer would alter,
goes through an adaptive byte model instead (`_blocks`). The header (`_compressed_file`) binds a file to the
weights, the tokenizer and the machine; SHA-256 of the original has the last word, so wrong bytes are never handed
out. Computed in exact fp32 on the CPU: the same file for every batch size. Another version of torch or another
processor may round otherwise; then decompression says so and gives nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import lzma
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmwright.data.facts import XZ_PRESET
from lmwright.errors import ConfigError, DataError, RequestError, UnsupportedError
from lmwright.progress import bar
from lmwright.recipes._binding import machine, model_hash, other_machine, require_model, tokenizer_hash
from lmwright.recipes._blocks import Codec
from lmwright.recipes._compressed_file import MOST_BYTES, MOST_STREAMS, MOST_THREADS, Header, pack, unpack
from lmwright.recipes._single_file import beside, read_file, refuse_output, write_file
from lmwright.recipes.opening import Opened, find_model, open_model

if TYPE_CHECKING:
    from lmwright.model.language_model import LanguageModel

SUFFIX = ".lmz"
LONGEST_CONTEXT = 1024
STREAM_TOKENS = 4096  # a stream costs some 4 bytes and the context at its beginning: 0.2% of so many tokens' code
USUAL_STREAMS = 16  # exact arithmetic goes by 16 rows (model.exact.ROWS); more at a time are no faster
BATCH_SIZE = 16
XZ_LIMIT = 2**24  # bytes; of more, what xz makes of them is not worth the wait
ONE_THREAD = 2**26  # weights; a step of fewer is over before a second thread has woken


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """A compressed file, and what its size is made of.

    data: the file. original_bytes: before. raw_bytes: of them, what went through the byte model. text_bits,
    raw_bits: code length, -sum log2 p, under the language model and under the byte model. header_bytes: of data.
    """

    data: bytes = dataclasses.field(repr=False)
    original_bytes: int
    raw_bytes: int
    tokens: int
    streams: int
    context: int
    text_bits: float
    raw_bits: float
    header_bytes: int

    @property
    def compressed_bytes(self) -> int:
        """Size of the file."""
        return len(self.data)

    @property
    def bits(self) -> float:
        """Code length of everything: what an ideal coder without a header would need."""
        return self.text_bits + self.raw_bits

    @property
    def bits_per_byte(self) -> float | None:
        """Bits of the file for each byte of the original; None of an empty one."""
        return 8 * len(self.data) / self.original_bytes if self.original_bytes else None

    @property
    def overhead_percent(self) -> float | None:
        """By how much the file, header and all, is longer than the code length; None of an empty one."""
        return 100 * (8 * len(self.data) / self.bits - 1) if self.bits else None

    @property
    def coder_overhead_percent(self) -> float | None:
        """The same of the coded bytes alone."""
        return 100 * (8 * (len(self.data) - self.header_bytes) / self.bits - 1) if self.bits else None

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the file itself, as JSON holds it."""
        fields = [field.name for field in dataclasses.fields(self) if field.name != "data"]
        derived = ["compressed_bytes", "bits", "bits_per_byte", "overhead_percent", "coder_overhead_percent"]
        return {name: getattr(self, name) for name in (*fields, *derived)}


def compress(
    file: Path,
    model: Path | str,
    out: Path | None = None,
    *,
    batch_size: int = BATCH_SIZE,
    streams: int | None = None,
    force: bool = False,
    warn: Callable[[str], None] = warnings.warn,
) -> tuple[Path, Compressed, int | None]:
    """Compress a file; return the new file's path, its facts and the size that xz reaches.

    out: None means beside the original, with SUFFIX added. Raises ConfigError if it is there and force is False,
    or if the original, as /dev/stdin, has no place of its own.
    The size under xz is None where the file has more than XZ_LIMIT bytes.
    """
    _require_streams(streams)
    out = beside(file, SUFFIX) if out is None else out
    refuse_output(file, out, force=force)
    found = find_model(model, warn=warn)
    data = read_file(file, MOST_BYTES)
    opened = open_model(model, found=found, warn=warn)
    made = compress_bytes(opened, data, streams=streams, batch_size=batch_size, progress=True)
    write_file(file, out, made.data, force=force)
    if streams is not None and made.streams < streams:
        warn(f"{file}: has {made.tokens} tokens, so it is in {made.streams} streams, not {streams}")
    return out, made, len(lzma.compress(data, preset=XZ_PRESET)) if len(data) <= XZ_LIMIT else None


def decompress(
    file: Path,
    model: Path | str,
    out: Path | None = None,
    *,
    batch_size: int = BATCH_SIZE,
    force: bool = False,
    warn: Callable[[str], None] = warnings.warn,
) -> tuple[Path, int]:
    """Bring back a file; return its path and size. out: None means the compressed file's, without SUFFIX."""
    if out is None:
        if not file.name.endswith(SUFFIX) or file.name == SUFFIX:
            raise ConfigError(f"{file}: its name does not end in {SUFFIX}; say with --out what to write")
        out = file.with_name(file.name.removesuffix(SUFFIX))
    refuse_output(file, out, force=force)
    coded = read_file(file, 2 * MOST_BYTES)
    unpack(coded, str(file))  # a damaged file is told before a model is opened
    opened = open_model(model, warn=warn)
    data = decompress_bytes(opened, coded, batch_size=batch_size, progress=True, where=str(file), warn=warn)
    write_file(file, out, data, force=force)
    return out, len(data)


def compress_bytes(
    opened: Opened,
    data: bytes,
    *,
    streams: int | None = None,
    batch_size: int = BATCH_SIZE,
    progress: bool = False,
) -> Compressed:
    """Compress bytes.

    streams: how many the tokens are cut into, one a token at most; None means one for each STREAM_TOKENS,
    USUAL_STREAMS at most.
    batch_size: streams that are computed together; changes speed and memory, never the result.
    Raises RequestError for more than MOST_BYTES, UnsupportedError for a model that has no exact arithmetic here,
    CheckpointError for one without a tokenizer or with damaged weights.
    """
    import numpy as np

    from lmwright.decode.coding.adaptive import encode_bytes
    from lmwright.decode.coding.streams import Windows, arithmetic, encode_tokens

    _require_count("batch_size", batch_size)
    _require_streams(streams)
    if len(data) > MOST_BYTES:
        raise RequestError(f"compress: {len(data)} bytes; at most {MOST_BYTES} are taken: cut them into parts")
    codec = _codec(opened)
    segments, ids, raw = codec.split(data)
    if streams is None:
        streams = min(max(len(ids) // STREAM_TOKENS, 1), USUAL_STREAMS)
    streams = min(streams, len(ids))
    windows = Windows(context=min(opened.network.config.max_positions, LONGEST_CONTEXT), start=_start(opened))
    threads = _threads(opened.network)
    with bar("compressing", total=len(ids) + len(raw), unit="sym", shown=progress) as shown:
        coded_raw, raw_bits = encode_bytes(raw, shown.update)
        with arithmetic(threads):
            coded, text_bits = encode_tokens(
                opened.network,
                np.array(ids, dtype=np.int64),
                windows,
                streams=streams,
                batch_size=batch_size,
                progress=shown.update,
            )
    header = Header(
        model=model_hash(opened.network),
        tokenizer=tokenizer_hash(opened),
        sha256=hashlib.sha256(data).digest(),
        machine=machine(),
        length=len(data),
        context=windows.context,
        start=windows.start,
        threads=threads,
        segments=tuple(segments),
    )
    packed = pack(header, coded_raw, coded)
    return Compressed(
        data=packed,
        original_bytes=len(data),
        raw_bytes=len(raw),
        tokens=len(ids),
        streams=streams,
        context=windows.context,
        text_bits=text_bits,
        raw_bits=raw_bits,
        header_bytes=len(packed) - len(coded_raw) - sum(len(stream) for stream in coded),
    )


def decompress_bytes(
    opened: Opened,
    data: bytes,
    *,
    batch_size: int = BATCH_SIZE,
    progress: bool = False,
    where: str = "the compressed data",
    warn: Callable[[str], None] = warnings.warn,
) -> bytes:
    """Return the bytes that `compress_bytes` compressed.

    where: what messages call the data. warn: is told if the machine is another one. Raises DataError for damaged
    data, and where this machine's arithmetic cannot decode it; CheckpointError for another model's.
    """
    from lmwright.decode.coding.adaptive import decode_bytes
    from lmwright.decode.coding.streams import Windows, arithmetic, decode_tokens

    _require_count("batch_size", batch_size)
    header, coded_raw, coded = unpack(data, where)
    codec = _codec(opened)
    require_model(header, opened, where)
    _refuse_other_rules(header, opened.network, where)
    if differs := other_machine(header):
        warn(
            f"{where}: was compressed with another {', '.join(differs)}; where that rounds otherwise, it cannot "
            "be decompressed here"
        )
    windows = Windows(context=header.context, start=header.start)
    try:
        with bar("decompressing", total=header.num_tokens + header.num_raw, unit="sym", shown=progress) as shown:
            raw = decode_bytes(coded_raw, header.num_raw, shown.update)
            with arithmetic(header.threads):
                ids = decode_tokens(
                    opened.network, coded, header.num_tokens, windows, batch_size=batch_size, progress=shown.update
                )
        found = codec.join(header.segments, ids.tolist(), raw)
        if len(found) != header.length or hashlib.sha256(found).digest() != header.sha256:
            raise DataError("what comes out is not what was compressed")
    except DataError as error:
        known = f", which had another {', '.join(differs)}" if differs else ""
        raise DataError(
            f"{where}: cannot be decompressed here ({error}); its checksums are right, so this machine computes "
            f"other probabilities than the one that compressed it{known}; decompress it there"
        ) from None
    return found


def _codec(opened: Opened) -> Codec:
    device = next(opened.network.parameters()).device.type
    if device != "cpu":
        raise UnsupportedError(
            f"compression needs exact arithmetic, which is on the CPU only; the model is on {device}"
        )
    config = opened.network.config
    if config.recurrent:
        raise UnsupportedError(
            f"compression needs a model that finds the same bits for a text at once and token by token, and there "
            f"is no such arithmetic for mixer {config.mixer!r}; take a model with attention"
        )
    if config.max_positions < 2:
        raise UnsupportedError("compression needs a model with a context of at least 2 tokens")
    return Codec(opened.require_tokenizer(), config.vocab_size)


def _start(opened: Opened) -> int:
    """The token before the first one: what begins a text, or token 0 where a model has none such."""
    try:
        return opened.prompt_ids("")[-1]
    except RequestError:
        return 0


def _threads(network: LanguageModel) -> int:
    """The number of threads by a fixed rule, never by a measurement: it decides the last bits, and so the file."""
    import torch

    return 1 if network.num_parameters() < ONE_THREAD else min(torch.get_num_threads(), MOST_THREADS)


def _refuse_other_rules(header: Header, network: LanguageModel, where: str) -> None:
    """Raise DataError for settings that `compress_bytes` never takes: memory and threads would follow them."""
    context, vocab = min(network.config.max_positions, LONGEST_CONTEXT), network.config.vocab_size
    threads = MOST_THREADS if network.num_parameters() >= ONE_THREAD else 1
    if header.context > context or header.start >= vocab or header.threads > threads:
        raise DataError(
            f"{where}: its header holds impossible numbers for this model (context {header.context}, start token "
            f"{header.start}, {header.threads} threads; at most {context}, {vocab - 1} and {threads}); get it anew"
        )


def _require_streams(streams: int | None) -> None:
    if streams is not None:
        _require_count("streams", streams)
        if streams > MOST_STREAMS:
            raise ConfigError(
                f"streams = {streams}: at most {MOST_STREAMS}; more than {USUAL_STREAMS} are no faster, and each "
                "costs some bytes"
            )


def _require_count(name: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} = {value!r}: must be a whole number of at least 1")
