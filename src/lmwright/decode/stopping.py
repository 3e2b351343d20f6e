"""Stop strings in text that comes piece by piece.

Text is cut before the stop string that is complete first (of two complete at the same character, the longer). What
may yet be the beginning of one is held back, and no more than that. Knows no tokens.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Watches a growing text for the first of several stop strings.

    found: the stop string that ended the text, or None so far.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found: str | None = None

    def push(self, piece: str) -> str:
        """Take the next piece and return the text that can be shown; after a match nothing more is."""
        if self.found is not None:
            return ""
        text = self._held + piece
        matches = [(place + len(stop), place, stop) for stop in self._stops if (place := text.find(stop)) >= 0]
        if matches:
            _, place, self.found = min(matches)
            self._held = ""
            return text[:place]
        shown = len(text) - self._beginning(text)
        self._held = text[shown:]
        return text[:shown]

    def finish(self) -> str:
        """Return what is still held back: no stop string can be completed any more."""
        held, self._held = self._held, ""
        return held

    def _beginning(self, text: str) -> int:
        """Return the length of the longest end of `text` with which a stop string begins."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0
