"""Greedy decoding gives the tokens of transformers.generate, on random tiny models of both families."""

from __future__ import annotations

import pytest
import torch
from decode_helpers import CONFIGS, model

from lmwright import seams
from lmwright.decode.params import SamplingParams
from lmwright.decode.protocol import Request, collect
from lmwright.decode.reference import ReferenceGenerator
from lmwright.seeds import numpy_generator


def peer(name):
    """Return the transformers model with the weights of ours."""
    import transformers

    ours = model(name)
    family = seams.load("lmwright.model.families", ours.config.family)
    fields = family.to_hf(ours.config)
    config = transformers.AutoConfig.for_model(**fields)
    theirs = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    weights = family.to_file(dict(ours.named_parameters()), ours.config)
    missing = theirs.load_state_dict(weights, strict=False)
    assert missing.unexpected_keys == []
    assert set(missing.missing_keys) <= {"lm_head.weight"}  # where it is tied
    theirs.tie_weights()
    theirs.train(False)
    return theirs


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_token_for_token(name, penalty):
    theirs = peer(name)
    rng = numpy_generator(3, name)
    prompts = [rng.integers(1, 61, size=length).tolist() for length in (1, 2, 7, 16, 33, 64, 90)]
    params = SamplingParams(temperature=0, max_new_tokens=40, repetition_penalty=penalty)
    requests = [Request(prompt_ids=prompt, params=params) for prompt in prompts]
    results = collect(requests, ReferenceGenerator(model(name)).generate(requests))
    for prompt, [result] in zip(prompts, results, strict=True):
        ids = torch.tensor([prompt])
        with torch.no_grad():
            output = theirs.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=40,
                repetition_penalty=penalty,
                eos_token_id=0,
                pad_token_id=0,
            )
        assert list(result.token_ids) == output[0, len(prompt) :].tolist()
