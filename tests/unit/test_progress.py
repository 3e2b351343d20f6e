"""The progress bar: drawn on a terminal only, and only where it is wanted."""

from __future__ import annotations

import io
import sys

import pytest

from lmwright import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "shown", "drawn"),
    [(Terminal(), True, True), (Terminal(), False, False), (io.StringIO(), True, False)],
)
def test_it_is_drawn_on_a_terminal_where_it_is_wanted(monkeypatch, stream, shown, drawn) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "DELAY_SECONDS", 0.0)
    with progress.bar("counting", total=2, unit="sheep", shown=shown) as bar:
        bar.update()
        bar.update()
    assert ("counting: 100%" in stream.getvalue()) is drawn
    assert bool(stream.getvalue()) is drawn
