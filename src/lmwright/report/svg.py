"""A matplotlib figure -> the same bytes each time -> an SVG that can stand inside an HTML page.

Inside a page an SVG has no namespace, no identifier that another figure has too, and takes its colours from the
page's style sheet, so that dark mode and print reach it: each colour of `INKS` becomes `var(--name, colour)`.
Knows nothing of what is drawn.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT, RULE = "#23211e", "#78726a", "#dcd7cd"
SERIES = ("#1d6390", "#c2501c", "#3c7a4c", "#8a4a8c", "#96761a", "#5b5f66")
INKS = {INK: "ink", FAINT: "faint", RULE: "rule"} | {colour: f"series-{i}" for i, colour in enumerate(SERIES, 1)}

SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lmwright",
    "path.simplify": True,
    "path.simplify_threshold": 0.2,
    "text.parse_math": False,
    "axes.unicode_minus": True,
}
REFERENCE = re.compile(r"(?<=url\(#)|(?<=^#)")


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """Draw with matplotlib's defaults and `SETTINGS`, whatever the user's are; those come back at the end."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def svg_text(figure: Figure) -> str:
    """Return the figure as an SVG document; equal figures give equal text."""
    buffer = io.StringIO()
    with own_settings():
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    return buffer.getvalue()


def inline_svg(figure: Figure, *, prefix: str, label: str) -> str:
    """Return the figure as an <svg> element for a page.

    prefix: makes its identifiers unique in the page. label: what a reader who cannot see it is told.
    """
    root = ElementTree.fromstring(svg_text(figure))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith("}metadata"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {
            name.rpartition("}")[2]: _value(name, value, prefix) for name, value in element.attrib.items()
        }
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def _value(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return f"{prefix}-{value}"
    if name == "style":
        value = re.sub(r"#[0-9a-f]{6}", lambda match: _ink(match.group()), value)
    return REFERENCE.sub(f"{prefix}-", value)


def _ink(colour: str) -> str:
    return f"var(--{INKS[colour]}, {colour})" if colour in INKS else colour
