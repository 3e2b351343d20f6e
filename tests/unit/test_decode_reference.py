"""The reference loop: what ends a sequence, whose randomness it draws, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from decode_helpers import CONFIGS, logits_of, model, random_model, random_request, tokenizer

from lmwright.decode.distribution import distribution, sample
from lmwright.decode.params import SamplingParams
from lmwright.decode.protocol import Finished, Request, Token, collect
from lmwright.decode.reference import ReferenceGenerator
from lmwright.errors import RequestError, UnsupportedError
from lmwright.model.config import ModelConfig
from lmwright.seeds import torch_generator


def generate(generator, *requests):
    return [one[0] for one in collect(requests, generator.generate(requests))]


def ask(prompt=(1, 2, 3), **params):
    return Request(prompt_ids=list(prompt), params=SamplingParams(**params))


def text_model(seed=0):
    """Return a model over the vocabulary of the test tokenizer."""
    config = ModelConfig.gpt2(
        vocab_size=tokenizer().vocab_size, hidden_size=16, num_layers=1, num_heads=2, max_positions=64
    )
    return random_model(config, seed)


@pytest.mark.parametrize("name", CONFIGS)
def test_equals_a_loop_written_out(name):
    """Distribution of the last logits, one draw of the request's own stream, append; until 20 tokens or eos."""
    for seed in (1, 2, 3):
        params = SamplingParams(temperature=0.8, top_p=0.9, seed=seed, max_new_tokens=20)
        stream, ids = torch_generator(seed, "sample", 0), [5, 9, 2]
        while len(ids) < 23 and ids[-1] != 0:
            probs = distribution(logits_of(model(name), ids)[-1:], params)
            ids.append(int(sample(probs, [stream])))
        [result] = generate(ReferenceGenerator(model(name)), ask([5, 9, 2], **vars(params)))
        assert [5, 9, 2, *result.token_ids] == ids
        assert result.finish_reason == ("stop" if ids[-1] == 0 else "length")


def test_eos_and_stop_ids_end_a_sequence_and_are_kept_in_the_ids():
    network = model("gpt2")
    [free] = generate(ReferenceGenerator(network), ask(temperature=0, max_new_tokens=12, ignore_eos=True))
    assert free.finish_reason == "length"
    assert len(free.token_ids) == 12
    token = free.token_ids[4]
    first = free.token_ids.index(token)
    for generator, params in (
        (ReferenceGenerator(network, eos_ids=[token]), {}),
        (ReferenceGenerator(network, eos_ids=[]), {"stop_token_ids": [token]}),
        (ReferenceGenerator(network, eos_ids=[token]), {"stop_token_ids": [token], "ignore_eos": True}),
    ):
        [result] = generate(generator, ask(temperature=0, max_new_tokens=12, **params))
        assert result.token_ids == free.token_ids[: first + 1]
        assert (result.finish_reason, result.stop) == ("stop", token)
    [result] = generate(ReferenceGenerator(network, eos_ids=[token]), ask(temperature=0, ignore_eos=True))
    assert result.finish_reason == "length"


def test_the_end_of_the_context_ends_a_sequence():
    prompt = [1 + index % 60 for index in range(140)]
    request = ask(prompt, max_new_tokens=50, ignore_eos=True, seed=1)
    for cached in (True, False):
        [result] = generate(ReferenceGenerator(model("gpt2"), cached=cached), request)
        assert (len(result.token_ids), result.finish_reason) == (10, "length")


def test_a_stop_string_cuts_the_text_and_is_never_shown():
    generator = ReferenceGenerator(text_model(), tokenizer())
    [free] = generate(generator, ask(seed=4, max_new_tokens=40, ignore_eos=True))
    assert free.text == tokenizer().decode(free.token_ids)
    stop = free.text[10:13]
    request = ask(seed=4, max_new_tokens=40, stop=[stop, "never there"], ignore_eos=True)
    events = list(generator.generate([request]))
    [[result]] = collect([request], events)
    assert result.text == free.text[: free.text.index(stop)]
    assert (result.finish_reason, result.stop) == ("stop", stop)
    assert result.token_ids == free.token_ids[: len(result.token_ids)]
    assert stop in tokenizer().decode(result.token_ids)
    assert stop not in tokenizer().decode(result.token_ids[:-1])
    shown = ""
    for event in events:
        shown += event.text
        assert free.text.startswith(shown)


def test_events_stream_and_join_to_the_text():
    generator = ReferenceGenerator(text_model(), tokenizer())
    requests = [ask([1, 2], seed=1, max_new_tokens=30), ask([3], seed=2, max_new_tokens=5)]
    events = list(generator.generate(requests))
    for index, [result] in enumerate(collect(requests, events)):
        own = [event for event in events if event.request == index]
        assert [isinstance(event, Finished) for event in own] == [False] * (len(own) - 1) + [True]
        assert "".join(event.text for event in own) == result.text
        assert tuple(event.token_id for event in own if isinstance(event, Token)) == result.token_ids
        kept = result.token_ids[:-1] if result.finish_reason == "stop" else result.token_ids
        assert result.text == tokenizer().decode(kept)


def test_the_first_event_comes_before_the_last_token_is_computed():
    calls = []
    network = model("gpt2")
    hook = network.register_forward_hook(lambda *_: calls.append(1))
    stream = ReferenceGenerator(network, eos_ids=[]).generate([ask(max_new_tokens=20, seed=0)])
    next(stream)
    hook.remove()
    assert len(calls) == 1


def test_a_request_does_not_depend_on_its_neighbours():
    requests = [random_request(seed, longest=6) for seed in range(24)]
    for name in CONFIGS:
        together = generate(ReferenceGenerator(model(name)), *requests)
        for request, result in zip(requests, together, strict=True):
            assert generate(ReferenceGenerator(model(name)), request) == [result]
        assert generate(ReferenceGenerator(model(name), batch_size=3), *requests[::-1]) == together[::-1]


def test_the_seed_decides_and_is_told():
    generator = ReferenceGenerator(model("gpt2"))
    request = ask(max_new_tokens=30, temperature=2.0, ignore_eos=True)
    [one], [two] = generate(generator, request), generate(generator, request)
    assert one.token_ids != two.token_ids
    [again] = generate(generator, ask(max_new_tokens=30, temperature=2.0, ignore_eos=True, seed=one.seed))
    assert again == one
    [greedy] = generate(generator, ask(temperature=0))
    assert greedy.seed is None


def test_several_sequences_differ_and_the_first_is_the_one_asked_alone():
    generator = ReferenceGenerator(model("gpt2"))
    request = ask(max_new_tokens=20, temperature=2.0, seed=3, num_return_sequences=4)
    [results] = collect([request], generator.generate([request]))
    assert len({result.token_ids for result in results}) == 4
    [alone] = generate(generator, ask(max_new_tokens=20, temperature=2.0, seed=3))
    assert alone == results[0]


def test_repetition_penalty_sees_prompt_and_output():
    [result] = generate(
        ReferenceGenerator(model("gpt2"), eos_ids=[]),
        ask([1, 2, 3], temperature=0, repetition_penalty=1000.0, max_new_tokens=25),
    )
    assert len({1, 2, 3, *result.token_ids}) == 28


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ask([]), "the prompt is empty"),
        (ask([1] * 150), "the prompt has 150 tokens; the model's context holds 150"),
        (ask([1, 61]), "prompt_ids: there is no token 61; allowed: 0 to 60"),
        (ask([-1]), "prompt_ids: there is no token -1"),
        (ask(stop_token_ids=[99]), "stop_token_ids: there is no token 99"),
        (ask(stop="x"), "needs a tokenizer"),
    ],
)
def test_refuses_before_any_work(request_, message):
    generator = ReferenceGenerator(model("gpt2"))
    with pytest.raises(RequestError, match=message):
        generator.generate([request_])
    with pytest.raises(RequestError, match=f"request 1: .*{message}"):
        generator.generate([ask(), request_])


def test_bf16_runs_and_cannot_be_exact():
    request = ask(temperature=0, max_new_tokens=5)
    generator = ReferenceGenerator(model("gpt2"), dtype=torch.bfloat16)
    assert len(generate(generator, request)[0].token_ids) <= 5
    with pytest.raises(UnsupportedError, match="exact"):
        generate(ReferenceGenerator(model("gpt2"), dtype=torch.bfloat16, exact=True), request)
