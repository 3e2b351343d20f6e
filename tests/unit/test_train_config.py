"""The training table of a run file: completed, checked, and impossible settings refused before anything runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from lmwright.config import convert
from lmwright.errors import ConfigError
from lmwright.train.config import TrainConfig


def test_what_is_left_out_is_filled_in_and_survives_a_round_trip() -> None:
    config = TrainConfig(steps=200, batch_size=8)
    assert config.micro_batch_size == 8
    assert (config.eval_every, config.checkpoint_every) == (20, 40)
    assert config.schedule == {"name": "cosine", "warmup_steps": 10, "floor": 0.1}
    assert config.optimizer["betas"] == (0.9, 0.95)
    assert convert(json.loads(json.dumps(asdict(config))), TrainConfig, "again") == config


def test_the_rate_of_a_step_is_the_peak_times_the_schedule() -> None:
    schedule = {"name": "linear", "warmup_steps": 2, "floor": 0.0}
    config = TrainConfig(steps=10, batch_size=1, optimizer={"name": "adamw", "lr": 0.5}, schedule=schedule)
    assert [config.lr(step) for step in (0, 1, 2, 9)] == pytest.approx([0.25, 0.5, 0.5, 0.5 / 8])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, r"steps = 0.*>= 1"),
        ({"micro_batch_size": 9}, "micro_batch_size = 9: must be at most batch_size = 8"),
        ({"optimizer": {"name": "adamv"}}, "did you mean adamw"),
        ({"optimizer": {"lr": 1.0}}, "must give name, one of adamw"),
        ({"optimizer": {"name": "adamw", "learning_rate": 1.0}}, "unknown setting learning_rate"),
        ({"optimizer": {"name": "adamw", "lr": -1.0}}, r"lr = -1.0"),
        ({"optimizer": {"name": "adamw", "betas": [0.9, 1.0]}}, r"betas\[1\] = 1.0"),
        ({"schedule": {"name": "cosin"}}, "did you mean cosine"),
        ({"schedule": {"name": "cosine", "warmup_steps": 20}}, "less than the run's 20 steps"),
        ({"schedule": {"name": "cosine", "floor": 2}}, "floor = 2"),
        ({"schedule": {"name": "wsd", "warmup_steps": 10, "decay_steps": 15}}, "exceeds the run's 20 steps"),
        ({"schedule": {"name": "constant", "floor": 0.5}}, "unknown setting floor"),
        ({"clip_norm": 0}, "clip_norm = 0"),
        ({"precision": "fp16"}, "precision = 'fp16'"),
        ({"threads": 0}, "threads = 0: must be a whole number from 1 to 1024, or auto"),
        ({"threads": 99999}, "threads = 99999: must be a whole number from 1 to 1024, or auto"),
        ({"threads": "abc"}, "threads = 'abc': must be a whole number from 1 to 1024, or auto"),
        ({"threads": True}, "threads = True"),
        ({"keep_checkpoints": 0}, "keep_checkpoints = 0"),
        ({"stepps": 3}, "did you mean steps"),
    ],
)
def test_an_impossible_setting_is_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        convert({"steps": 20, "batch_size": 8, **settings}, TrainConfig, "run.toml")


def test_a_run_of_one_step_is_possible() -> None:
    config = TrainConfig(steps=1, batch_size=1)
    assert config.lr(0) == config.optimizer["lr"]
    assert config.checkpoint_every == 1
