"""The one table of precisions."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from lmwright.errors import ConfigError
from lmwright.model import precision


@pytest.mark.parametrize("name", precision.PRECISIONS)
def test_the_table_says_what_torch_says(name):
    one = precision.PRECISIONS[name]
    assert one.name == name
    assert isinstance(one.torch_dtype, torch.dtype)
    assert one.torch_dtype.itemsize == one.bytes
    assert precision.of_torch(one.torch_dtype) is one
    assert precision.find(name) is precision.find(one.long) is one


def test_unknown_ones():
    assert precision.of_torch(torch.float64) is None
    with pytest.raises(ConfigError, match=r"'bf61'.*bf16"):
        precision.find("bf61", "training.precision")


def test_it_is_free_of_torch():
    program = "import sys, lmwright.model.precision; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
