"""The verbs eval, generate and export, from the command line's words to its output and exit code."""

from __future__ import annotations

import importlib.util
import io
import json
import math
import sys
from pathlib import Path

import pytest
from decode_helpers import tokenizer
from model_dirs import SHAPES, built_corpus, hf_directory, run_directory

import lmwright as lm
from lmwright.cli.main import run
from lmwright.recipes import verification
from lmwright.runs import verify_manifest
from lmwright.text.tokenizer import train_bpe


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a run, a model and a corpus."""
    path = tmp_path_factory.mktemp("verbs")
    run_directory(path / "run")
    hf_directory(path / "model", "gpt2")
    built_corpus(path / "corpus")
    return path


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Run a command line; return exit code, standard output and standard error."""
    capsys.readouterr()
    code = run([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def feed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_eval_prints_pure_json_that_equals_python(place: Path, capsys) -> None:
    code, out, _ = call(capsys, "eval", place / "run", "--corpus", place / "corpus", "--json")
    assert code == 0
    found = json.loads(out)
    loss = lm.load(place / "run").evaluate(place / "corpus").loss
    assert found["bits_per_byte"] == loss.bits_per_byte == loss.nats / math.log(2) / loss.bytes
    assert found["nats_per_token"] == loss.nats_per_token
    assert found["perplexity"] == loss.perplexity
    assert (found["split"], found["tokens"], found["context_length"]) == ("validation", loss.tokens, 64)
    code, out, _ = call(
        capsys, "eval", place / "run", "--corpus", place / "corpus", "--batch-size", 1, "--context", 64, "--json"
    )
    assert json.loads(out)["nats"] == pytest.approx(loss.nats, rel=1e-6)


def test_eval_shows_a_table_with_formulas_and_references(place: Path, capsys) -> None:
    code, out, _ = call(capsys, "eval", place / "model", "--corpus", place / "corpus", "--precision", "bf16")
    assert code == 0
    for part in ("nats / ln 2 / bytes", "exp(nats/token)", "byte unigram", "xz", "(validation)", "bf16"):
        assert part in out
    code, out, _ = call(capsys, "eval", place / "model", "--corpus", place / "text-of-corpus" / "03.txt")
    assert code == 0
    assert "xz" not in out


def test_eval_of_a_recurrent_model_says_that_its_state_goes_on(place: Path, tmp_path: Path, capsys) -> None:
    hf_directory(tmp_path / "lstm", "lstm")
    words = ("eval", tmp_path / "lstm", "--corpus", place / "corpus")
    losses = []
    for length in (16, 64):
        code, out, _ = call(capsys, *words, "--context", length)
        assert code == 0
        assert f"in rows of {length}, the state taken along through 1 stretch (fp32)" in out
        found = json.loads(call(capsys, *words, "--context", length, "--json")[1])
        assert found["stretches"] == 1
        losses.append(found["nats"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)  # how it is cut into rows has no part in it
    assert (
        json.loads(call(capsys, "eval", place / "run", "--corpus", place / "corpus", "--json")[1])["stretches"]
        is None
    )


def test_eval_refuses_shards_of_another_tokenizer(place: Path, tmp_path: Path, capsys) -> None:
    hf_directory(tmp_path / "model")
    train_bpe(["other words entirely, and words again"] * 9, 270).save(tmp_path / "model", force=True)
    (tmp_path / "model" / "MANIFEST.json").unlink()
    code, out, err = call(capsys, "eval", tmp_path / "model", "--corpus", place / "corpus")
    assert (code, out) == (1, "")
    assert "was encoded with another tokenizer" in err
    code, _, _ = call(capsys, "eval", tmp_path / "model", "--corpus", place / "text-of-corpus")
    assert code == 0


def test_generate_streams_the_text_that_python_gives(place: Path, capsys, monkeypatch) -> None:
    values = {"max-new-tokens": 20, "seed": 5, "temperature": 0.9, "top-k": 50, "top-p": 0.95, "min-p": 0.01}
    flags = [f"--{name}={value}" for name, value in values.items()]
    expected = lm.load(place / "run").generate(
        "the cat", max_new_tokens=20, seed=5, temperature=0.9, top_k=50, top_p=0.95, min_p=0.01
    )
    (place / "prompt.txt").write_text("the cat")
    for more in (("--prompt", "the cat"), ("--prompt-file", place / "prompt.txt"), ()):
        for cache in ((), ("--no-cache",)):
            feed(monkeypatch, b"the cat")
            code, out, err = call(capsys, "generate", place / "run", *more, *flags, *cache)
            assert (code, out, err) == (0, expected.text + "\n", "")


def test_generate_json_and_stop(place: Path, capsys) -> None:
    words = ("generate", place / "model", "--prompt", "the", "--seed", 1, "--max-new-tokens", 30, "--json")
    code, out, _ = call(capsys, *words)
    assert code == 0
    found = json.loads(out)
    assert tokenizer().decode(found["token_ids"]) == found["text"]
    assert found["params"]["max_new_tokens"] == 30
    stop = found["text"][6:9]
    code, out, _ = call(capsys, *words, "--stop", stop, "--stop", "never there")
    cut = json.loads(out)
    assert cut["text"] == found["text"][: found["text"].index(stop)]
    assert (cut["finish_reason"], cut["stop"]) == ("stop", stop)


def test_generate_without_streaming_shows_how_far_it_is_and_a_pipe_stays_silent(
    place: Path, capsys, monkeypatch
) -> None:
    made: list[dict[str, object]] = []

    class Recorded:
        def __init__(self, label: str, **options: object) -> None:
            made.append({**options, "done": 0})

        def __enter__(self) -> Recorded:
            return self

        def __exit__(self, *_: object) -> None: ...

        def update(self, count: int = 1) -> None:
            made[-1]["done"] += count

    monkeypatch.setattr("lmwright.progress.bar", Recorded)
    words = ("generate", place / "model", "--prompt", "the", "--seed", 1, "--max-new-tokens", 9)
    for terminal, more, shown in ((True, (), False), (True, ("--json",), True), (False, (), True)):
        monkeypatch.setattr("lmwright.cli.generate._streams", lambda terminal=terminal: terminal)
        assert call(capsys, *words, *more)[0] == 0
        assert (made[-1]["shown"], made[-1]["total"], made[-1]["done"]) == (shown, 9, 9)


def test_eval_and_generate_take_a_device(place: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    words = (("eval", place / "run", "--corpus", place / "corpus"), ("generate", place / "run", "--prompt", "the"))
    for verb in words:
        assert call(capsys, *verb, "--device", "auto")[0] == 0
        code, out, err = call(capsys, *verb, "--device", "cuda")
        assert (code, out) == (2, "")
        assert "device 'cuda': allowed here: auto, cpu" in err
        assert call(capsys, *verb, "--device", "tpu")[0] == 2


@pytest.mark.parametrize("family", SHAPES)
def test_export_is_verified_by_transformers_or_what_the_family_names(tmp_path: Path, capsys, family: str) -> None:
    hf_directory(tmp_path / "model", family)
    code, out, err = call(capsys, "export", tmp_path / "model", tmp_path / "out")
    assert (code, err) == (0, "")
    peer = "torch.nn.LSTM (transformers has no such class)" if family == "lstm" else "transformers"
    assert f"{peer} agrees" in out
    verdict = json.loads((tmp_path / "out" / "verification.json").read_text())
    assert (verdict["verified"], verdict["against"]) == (True, peer)
    assert verdict["max_abs_difference"] < verdict["tolerance"] == 1e-4
    assert verdict["agrees"] == dict.fromkeys(["logits", "greedy", "config", "weights", "tokenizer"], True)
    assert {"transformers", "torch", "lmwright"} <= set(verdict["versions"])
    assert "verification.json" in json.loads((tmp_path / "out" / "MANIFEST.json").read_text())["files"]
    verify_manifest(tmp_path / "out")


def test_export_in_bf16_is_verified_as_stored(place: Path, tmp_path: Path, capsys) -> None:
    code, _, _ = call(capsys, "export", place / "run", tmp_path / "out", "--dtype", "bf16")
    assert code == 0
    assert json.loads((tmp_path / "out" / "verification.json").read_text())["verified"] is True
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


def plant(monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    """Make one part of an export wrong."""
    from lmwright.recipes import export

    def spoil(opened: object, directory: Path) -> None:
        content = json.loads((directory / "config.json").read_text())
        content["rms_norm_eps"] = 0.25
        (directory / "config.json").write_text(json.dumps(content))

    if check == "config":
        monkeypatch.setattr(export, "_keep_ends_of_text", spoil)
    else:
        true = verification._logits
        monkeypatch.setattr(verification, "_logits", lambda model, ids: true(model, ids) + 2e-4)


@pytest.mark.parametrize("check", ["logits", "config"])
def test_a_failed_verification_exits_1_and_keeps_its_verdict(
    place: Path, tmp_path: Path, capsys, monkeypatch, check: str
) -> None:
    plant(monkeypatch, check)
    code, _, err = call(capsys, "export", place / "run", tmp_path / "out")
    assert code == 1
    assert "transformers disagrees" in err
    assert err.count("\n") == 1
    verdict = json.loads((tmp_path / "out" / "verification.json").read_text())
    assert verdict["verified"] is False
    assert verdict["agrees"][check] is False
    verify_manifest(tmp_path / "out")


def test_tokenizers_that_part_are_seen(tmp_path: Path) -> None:
    path = hf_directory(tmp_path / "model")
    assert verification._tokenizers_agree(tokenizer(), path)
    assert not verification._tokenizers_agree(train_bpe(["the cat sat on the log"] * 9, 265), path)


def test_without_transformers_nothing_is_verified_and_the_remedy_is_named(
    place: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    true = importlib.util.find_spec
    hidden = lambda name, *rest: None if name == "transformers" else true(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", hidden)
    code, out, _ = call(capsys, "export", place / "run", tmp_path / "out")
    assert code == 0
    assert "not verified" in out
    assert "pip install 'lmwright[verify]'" in out
    assert json.loads((tmp_path / "out" / "verification.json").read_text())["verified"] is None
    code, out, _ = call(capsys, "export", place / "run", tmp_path / "quiet", "--no-verify")
    assert code == 0
    assert not (tmp_path / "quiet" / "verification.json").exists()


def test_export_never_replaces_what_is_no_export(place: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    for target in (place / "run", place / "run" / "checkpoints", place / "run" / "checkpoints" / "step-000099"):
        code, _, err = call(capsys, "export", place / "run", target, "--force", "--no-verify")
        assert code == 2
        assert "overlaps" in err
    code, _, err = call(capsys, "export", place / "run", tmp_path / "mine", "--force", "--no-verify")
    assert code == 2
    assert "holds notes.txt" in err
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep me"
    for words in ((), ("--force",)):
        code, _, _ = call(capsys, "export", place / "run", place / "run" / "hf", "--no-verify", *words)
        assert code == 0
    code, _, err = call(capsys, "export", place / "run", place / "run" / "hf", "--no-verify")
    assert code == 2
    assert "--force" in err


BAD = [
    (("eval", "{place}/none", "--corpus", "{place}/corpus"), 1, "does not exist"),
    (("eval", "{place}/prompt", "--corpus", "{place}/corpus"), 1, "is a file"),
    (("eval", "{place}/corpus", "--corpus", "{place}/corpus"), 1, "holds no model"),
    (("eval", "{place}/run", "--corpus", "{place}/none"), 1, "does not exist"),
    (("eval", "{place}/run"), 2, "--corpus"),
    (("eval", "{place}/run", "--corpus", "{place}/corpus", "--split", "test"), 2, "validation"),
    (("eval", "{place}/run", "--corpus", "{place}/corpus", "--context", "65"), 2, "must be from 1 to 64"),
    (("eval", "{place}/run", "--corpus", "{place}/corpus", "--context", "0"), 2, "--context"),
    (("eval", "{place}/run", "--corpus", "{place}/corpus", "--batch-size", "-1"), 2, "--batch-size"),
    (("eval", "{place}/run", "--corpus", "{place}/text-of-corpus", "--split", "train"), 2, "no splits"),
    (("generate", "{place}/none", "--prompt", "x"), 1, "does not exist"),
    (("generate", "{place}/prompt", "--prompt", "x"), 1, "is a file"),
    (("generate", "{place}/corpus", "--prompt", "x"), 1, "no config.json"),
    (("generate", "{place}/run", "--prompt", "x", "--top-p", "2"), 2, "top_p = 2.0: is out of range; allowed"),
    (("generate", "{place}/run", "--prompt", "x", "--temperature", "nan"), 2, "temperature = nan"),
    (("generate", "{place}/run", "--prompt", "x", "--max-new-tokens", "-5"), 2, "max_new_tokens = -5"),
    (("generate", "{place}/run", "--prompt", "x", "--top-k", "many"), 2, "--top-k"),
    (("generate", "{place}/run", "--prompt", "x", "--stop", ""), 2, "stop = "),
    (("generate", "{place}/run", "--prompt", "x", "--prompt-file", "y"), 2, "give one of them"),
    (("generate", "{place}/run", "--prompt-file", "{place}/none"), 1, "No such file"),
    (("generate", "{place}/run", "--prompt-file", "{place}/run"), 1, "directory"),
    (("generate", "{place}/run", "--prompt-file", "{place}/empty"), 1, "the prompt is empty"),
    (("generate", "{place}/run", "--prompt-file", "{place}/latin1"), 1, "is not UTF-8 (byte 1)"),
    (("generate", "{place}/run"), 1, "standard input: the prompt is empty"),
    (("generate", "{place}/run", "--prompt", "the cat sat " * 40), 1, "the model's context holds 64"),
    (("generate", "{place}/run", "--prompt", "\udcff"), 1, "--prompt: is not UTF-8 (byte 0)"),
    (("generate", "{place}/run", "--prompt-file", "/dev/zero"), 1, "/dev/zero: has more than 16777216 bytes"),
    (("export", "{place}/none", "{place}/out"), 1, "does not exist"),
    (("export", "{place}/run"), 2, "OUT"),
    (("export", "{place}/run", "{place}/prompt"), 2, "is a file"),
    (("export", "{place}/run", "{place}/prompt", "--force"), 2, "is a file"),
    (("export", "{place}/run", "{place}/out", "--dtype", "int3"), 2, "--dtype"),
]


@pytest.mark.parametrize(("words", "code", "message"), BAD)
def test_bad_input_gets_one_line(place: Path, capsys, monkeypatch, words, code: int, message: str) -> None:
    (place / "prompt").write_text("x")
    (place / "empty").write_text("")
    (place / "latin1").write_bytes(b"a\xff")
    feed(monkeypatch, b"")
    got, out, err = call(capsys, *(word.format(place=place) for word in words))
    assert (got, out) == (code, "")
    assert err.count("\n") == 1
    assert message in err
    assert not (place / "out").exists()


def test_endless_and_closed_standard_input_get_one_line(place: Path, capsys, monkeypatch) -> None:
    with open("/dev/zero", encoding="utf-8") as endless:
        monkeypatch.setattr(sys, "stdin", endless)
        code, out, err = call(capsys, "generate", place / "run")
    assert (code, out) == (1, "")
    assert err == "lmwright: standard input: has more than 16777216 bytes; give a shorter prompt\n"
    monkeypatch.setattr(sys, "stdin", None)
    code, out, err = call(capsys, "generate", place / "run")
    assert (code, out) == (1, "")
    assert err == "lmwright: standard input: is closed; give the prompt with --prompt or --prompt-file\n"
