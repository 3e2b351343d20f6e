"""The tokenizer: text -> ids, ids -> text, and byte-level BPE training (Sennrich et al. 2016; bytes as in GPT-2).

Every `tokenizer.json` of the `tokenizers` library loads. Four rules hold for all of them:

- `encode` adds nothing: no bos, no template, no truncation, no padding.
- `encode` is a function: BPE dropout, which would split one text differently each time, is switched off.
- Text is never control: a text in which `<|endoftext|>` is spelled out does not encode to the special id unless
  the caller asks for it with `allow_special`.
- `hash` names the mapping; shards and models that were made with another one are refused by it.

Knows nothing of models or chat templates.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmwright.errors import ConfigError, DataError
from lmwright.runs import atomic_write_text
from lmwright.text.stream import REPLACEMENT, ByteStream, StreamDecoder, WindowStream

if TYPE_CHECKING:
    import tokenizers

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
END_OF_TEXT = "<|endoftext|>"
MAX_FILE_BYTES = 256 * 2**20
SMALLEST_VOCABULARY = 257  # 256 bytes and the end-of-text token
LARGEST_VOCABULARY = 2**24  # as of ModelConfig; the library reserves the memory of what it is asked for at once

# Contractions; a word with at most one leading mark or space; one digit; marks; line ends with the blank before
# them; blanks. Digits stand alone: ten tokens spell every number by its decimal places, and no merge is spent on
# the numbers that happen to be frequent in the corpus. The last blank of a run goes to the word that follows it.
PRE_TOKENS = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Spellings by which bos and eos are recognised in a bare tokenizer.json, in order of preference.
KNOWN_EOS = (END_OF_TEXT, "</s>", "<|end_of_text|>", "<eos>")
KNOWN_BOS = (END_OF_TEXT, "<s>", "<|begin_of_text|>", "<bos>")
KEPT_SETTINGS = ("unk_token", "pad_token", "chat_template", "model_max_length")


class Tokenizer:
    """A loaded tokenizer. Immutable; equal `hash` means equal ids for equal text."""

    def __init__(self, text: str, settings: dict[str, Any], where: str) -> None:
        """text: content of a tokenizer.json. settings: content of its tokenizer_config.json, or {}.

        where: names the source in messages. Raises DataError if either cannot be used.
        """
        description = _parse_description(text, where)
        self._description = description
        self._settings = settings
        self._where = where
        self._plain = _build(description, where)
        self._plain.encode_special_tokens = True  # spelled-out special tokens are text
        vocabulary = self._plain.get_vocab(with_added_tokens=True)
        self.vocab_size: int = _checked_size(vocabulary, where)
        self.special_ids: frozenset[int] = frozenset(
            token_id for token_id, token in self._plain.get_added_tokens_decoder().items() if token.special
        )
        self.eos_id: int | None = _role(settings, "eos_token", KNOWN_EOS, vocabulary, self.special_ids, where)
        self.bos_id: int | None = _role(settings, "bos_token", KNOWN_BOS, vocabulary, self.special_ids, where)
        self._leaks = self._find_leaks()

    @classmethod
    def load(cls, path: Path | str) -> Tokenizer:
        """Load a tokenizer.json, or the directory that holds one. Raises DataError if it cannot be used."""
        path = Path(path)
        file = path / TOKENIZER_FILE if path.is_dir() else path
        text = _read(file)
        config = file.with_name(CONFIG_FILE)
        settings = _parse_object(_read(config), str(config)) if config.is_file() else {}
        return cls(text, settings, str(file))

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of the tokenizer.json in canonical form: sorted keys, no blanks."""
        canonical = json.dumps(self._description, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Return the ids of `text`. allow_special: spelled-out special tokens become their ids.

        Raises DataError if the text holds half of a surrogate pair, which no UTF-8 can express, or the tokenizer
        itself gives up on it (a pattern without end, no token for an unknown word).
        """
        return self.encode_batch([text], allow_special=allow_special)[0]

    def encode_batch(self, texts: Sequence[str], *, allow_special: bool = False) -> list[list[int]]:
        """Return the ids of each text; the texts are encoded in parallel."""
        backend = self._with_special if allow_special else self._plain
        try:
            with _library_failures(self._where, "encode this text"):
                if self._leaks is not None and not allow_special:
                    return [self._encode_cut(text) for text in texts]
                batch = backend.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError:  # what the library says to a str that is not valid Unicode
            _refuse_surrogates(texts)
            raise
        return [encoding.ids for encoding in batch]

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """Return the text of `ids`; bytes that are no UTF-8 and ids outside the vocabulary become U+FFFD.

        For a byte-level vocabulary decode(encode(text)) == text. skip_special: leave special tokens out.
        """
        if self.is_byte_level:
            skipped = self.special_ids if skip_special else frozenset()
            found = b"".join(self.token_bytes(token_id) for token_id in ids if token_id not in skipped)
            return found.decode("utf-8", "replace")
        with _library_failures(self._where, "decode these tokens"):
            return "".join(
                self._plain.decode(run, skip_special_tokens=skip_special) if known else REPLACEMENT * len(run)
                for known, run in _runs(ids, self.vocab_size)
            )

    def stream(self, *, skip_special: bool = True) -> StreamDecoder:
        """Return an incremental decoder: `.push(id)` gives the text that became certain, `.finish()` the rest."""
        if not self.is_byte_level:
            return WindowStream(lambda ids: self.decode(ids, skip_special=skip_special))
        skipped = self.special_ids if skip_special else frozenset()
        return ByteStream(lambda token_id: b"" if token_id in skipped else self.token_bytes(token_id))

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that a token of a byte-level vocabulary stands for."""
        if 0 <= token_id < self.vocab_size:
            return self._bytes_of[token_id]
        return REPLACEMENT.encode()

    def token(self, token_id: int) -> str | None:
        """Return the vocabulary entry of an id, or None if it has none."""
        return self._plain.id_to_token(token_id) if 0 <= token_id < self.vocab_size else None

    @functools.cached_property
    def is_byte_level(self) -> bool:
        """Whether ids decode to bytes one by one (GPT-2, Llama 3, Qwen and what `train_bpe` makes)."""
        return (self._description.get("decoder") or {}).get("type") == "ByteLevel"

    def save(self, directory: Path, *, force: bool = False) -> None:
        """Write tokenizer.json and a tokenizer_config.json with which transformers' AutoTokenizer opens it.

        Raises ConfigError if other content is there already and force is False.
        """
        directory.mkdir(parents=True, exist_ok=True)
        files = {TOKENIZER_FILE: self._json(), CONFIG_FILE: self._config_json()}
        for name, text in files.items():
            path = directory / name
            if path.exists() and not force and path.read_bytes() != text.encode():
                raise ConfigError(f"{path}: holds another tokenizer; choose another place, or use --force")
        for name, text in files.items():
            atomic_write_text(directory / name, text)

    def _json(self) -> str:
        return json.dumps(self._description, indent=2, ensure_ascii=False) + "\n"

    def _config_json(self) -> str:
        # PreTrainedTokenizerFast reads tokenizer.json as it is; any other class may rebuild parts of it.
        settings: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_max_length": 10**30,
        }
        settings |= {key: self._settings[key] for key in KEPT_SETTINGS if key in self._settings}
        for key, token_id in (("bos_token", self.bos_id), ("eos_token", self.eos_id)):
            if token_id is not None:
                settings[key] = self._plain.id_to_token(token_id)
        return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"

    @functools.cached_property
    def _with_special(self) -> tokenizers.Tokenizer:
        # A second backend, made on first use: the switch is a property of the object and threads share it.
        return _build(self._description, self._where)

    @functools.cached_property
    def _bytes_of(self) -> list[bytes]:
        table = _byte_alphabet()
        return [_to_bytes(self._plain.id_to_token(index), table) for index in range(self.vocab_size)]

    def _find_leaks(self) -> re.Pattern[str] | None:
        """Find special spellings that the model itself would still map to the special id (a few vocabularies)."""
        leaks = []
        for token_id in self.special_ids - {self._unknown_id()}:
            spelling = self._plain.id_to_token(token_id)
            with _library_failures(self._where, f"encode {spelling!r}"):
                found = self._plain.encode(spelling, add_special_tokens=False).ids if spelling else []
            if spelling and token_id in found:
                leaks.append(re.escape(spelling))
        return re.compile("|".join(sorted(leaks, key=len, reverse=True))) if leaks else None

    def _encode_cut(self, text: str) -> list[int]:
        """Encode with each leaking spelling cut after its first character, so that it cannot be looked up."""
        assert self._leaks is not None
        cuts = [match.start() + 1 for match in self._leaks.finditer(text)]
        pieces = [text[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        batch = self._plain.encode_batch_fast(pieces, add_special_tokens=False)
        return [token_id for encoding in batch for token_id in encoding.ids]

    def _unknown_id(self) -> int | None:
        model = self._description.get("model") or {}
        unknown = model.get("unk_token")
        if isinstance(unknown, str):
            return self._plain.token_to_id(unknown)
        return model.get("unk_id")


def train_bpe(texts: Iterable[str], vocab_size: int, *, name: str = "corpus") -> Tokenizer:
    """Learn a byte-level BPE of exactly `vocab_size` tokens: `<|endoftext|>` (id 0), 256 bytes, then merges.

    The same texts give the same tokenizer, byte for byte. name: what messages call the texts. Raises ConfigError
    for a vocabulary below 257 or above 16,777,216, DataError if the text has too few pairs for `vocab_size`.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    if vocab_size < SMALLEST_VOCABULARY:
        raise ConfigError(
            f"vocab_size = {vocab_size}: must be at least {SMALLEST_VOCABULARY} (256 bytes and {END_OF_TEXT})"
        )
    if vocab_size > LARGEST_VOCABULARY:
        raise ConfigError(
            f"vocab_size = {vocab_size}: must be at most {LARGEST_VOCABULARY}; 8192 to 262144 is usual"
        )
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(PRE_TOKENS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=2,  # a pair seen once is a coincidence
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    if (reached := backend.get_vocab_size()) < vocab_size:
        raise DataError(
            f"{name}: too small for a vocabulary of {vocab_size}: its repeated pairs give only {reached} tokens; "
            f"ask for {reached} or fewer, or give more text"
        )
    return Tokenizer(backend.to_str(), {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}, "trained tokenizer")


def _read(path: Path) -> str:
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):  # a device may never end, a pipe never begin
            raise DataError(
                f"{path}: is not a regular file; give a {TOKENIZER_FILE} or the directory that holds it"
            )
        if facts.st_size > MAX_FILE_BYTES:
            raise DataError(f"{path}: has {facts.st_size} bytes; a tokenizer file has at most {MAX_FILE_BYTES}")
        with open(path, "rb") as file:
            return file.read(facts.st_size + 1).decode("utf-8")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); give a {TOKENIZER_FILE} or the directory that holds it"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 (byte {error.start}), so no {TOKENIZER_FILE}") from None


def _parse_object(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise DataError(f"{where}: must hold a JSON object, got {type(value).__name__}")
    return value


def _parse_description(text: str, where: str) -> dict[str, Any]:
    """Parse tokenizer.json. Truncation and padding are taken out, for they would drop or add ids unseen; dropout
    too, by which a text would have other ids each time.
    """
    description = _parse_object(text, where) | {"truncation": None, "padding": None}
    model = description.get("model")
    if isinstance(model, dict) and model.get("dropout") is not None:
        description["model"] = model | {"dropout": None}
    return description


def _build(description: dict[str, Any], where: str) -> tokenizers.Tokenizer:
    import tokenizers

    try:
        return tokenizers.Tokenizer.from_str(json.dumps(description))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises bare Exception, and its panics are BaseException
        raise DataError(
            f"{where}: is not a tokenizer that the tokenizers library reads ({str(error)!r})"
        ) from None


@contextlib.contextmanager
def _library_failures(where: str, task: str) -> Iterator[None]:
    """Turn what the library raises on a text into DataError: bare Exception, and panics (BaseException)."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if isinstance(error, Exception) and type(error) is not Exception:
            raise
        raise DataError(f"{where}: the tokenizer cannot {task} ({str(error)[:200]!r}); use another one") from None


def _checked_size(vocabulary: dict[str, int], where: str) -> int:
    """Return one more than the largest id. Raises DataError for an empty or wildly sparse vocabulary."""
    if not vocabulary:
        raise DataError(f"{where}: has an empty vocabulary")
    size = max(vocabulary.values()) + 1
    if size > 2 * len(vocabulary) + 4096:
        raise DataError(
            f"{where}: largest id {size - 1} with only {len(vocabulary)} tokens; ids must be nearly consecutive"
        )
    return size


def _role(
    settings: dict[str, Any],
    key: str,
    known: tuple[str, ...],
    vocabulary: dict[str, int],
    special_ids: frozenset[int],
    where: str,
) -> int | None:
    """Return the id of bos or eos: as the settings say, else by a known spelling among the special tokens."""
    named = settings.get(key)
    if isinstance(named, dict):
        named = named.get("content")
    if named is None:
        found = (vocabulary[spelling] for spelling in known if vocabulary.get(spelling) in special_ids)
        return next(found, None)
    if not isinstance(named, str) or named not in vocabulary:
        raise DataError(f"{where}: {CONFIG_FILE} names {key} {named!r}, which is not in the vocabulary")
    return vocabulary[named]


@functools.cache
def _byte_alphabet() -> dict[str, int]:
    """Return GPT-2's printable stand-ins, character -> byte: printable Latin-1 as itself, the rest from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(rest)}


def _to_bytes(token: str | None, table: dict[str, int]) -> bytes:
    if token is None:  # a hole in the vocabulary
        return REPLACEMENT.encode()
    try:
        return bytes(table[character] for character in token)
    except KeyError:  # an added token is stored as plain text, not in stand-ins
        return token.encode("utf-8", "replace")


def _refuse_surrogates(texts: Sequence[str]) -> None:
    for text in texts:
        if found := re.search("[\ud800-\udfff]", text):
            raise DataError(
                f"text: position {found.start()} holds half of a surrogate pair; it is not valid Unicode"
            ) from None


def _runs(ids: Iterable[int], vocab_size: int) -> Iterator[tuple[bool, list[int]]]:
    """Split ids into runs that are all inside (True) or all outside (False) the vocabulary."""
    for known, run in itertools.groupby(ids, key=lambda token_id: 0 <= token_id < vocab_size):
        yield known, list(run)
