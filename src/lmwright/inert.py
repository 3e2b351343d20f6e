"""Text that nothing obeys: names and values of others, made harmless for a terminal or a page.

Escape sequences, direction marks and other characters without a sign are shown by their number.
"""

from __future__ import annotations

import re

ACTIVE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def visible(text: str) -> str:
    """Return `text` with control, direction and surrogate characters shown as signs; newline and tab stay."""
    return ACTIVE.sub(lambda match: f"⟨U+{ord(match.group()):04X}⟩", text.replace("\r\n", "\n"))


def inert(text: str) -> str:
    """Return `text` as one line in which every control character is a sign."""
    return visible(text).replace("\r", "⟨U+000D⟩").replace("\n", "⟨U+000A⟩").replace("\t", "⟨U+0009⟩")
