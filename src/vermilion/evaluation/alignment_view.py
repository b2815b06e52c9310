"""What was said over what was heard, coloured by the kind of error: for the terminal and for reports."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from vermilion.evaluation.recognition import Step
from vermilion.formats.width import clean
from vermilion.text import is_wide, needs_blank

if TYPE_CHECKING:
    from rich.text import Text

STYLES = {"substitute": "bold red", "delete": "bold magenta", "insert": "bold blue"}
GAP, WIDE_GAP = "∗", "＊"
"""stand where the other line has a letter, or a Chinese one, and this one has none"""


def terminal(steps: Sequence[Step]) -> Text:
    """Two lines, reference and hypothesis, with a gap where one side has nothing."""
    from rich.text import Text

    out = Text()
    for title, hypothesis in (("said  ", False), ("heard ", True)):
        out.append(title, style="dim")
        for text, kind in _pieces(steps, hypothesis):
            out.append(text, style=STYLES.get(kind, ""))
        out.append("\n" if not hypothesis else "")
    return out


def markup(steps: Sequence[Step]) -> str:
    """The same as HTML: `<div class="said">` and `<div class="heard">`, errors as `<b class="substitute">`…"""
    lines = []
    for name, hypothesis in (("said", False), ("heard", True)):
        parts = []
        for text, kind in _pieces(steps, hypothesis):
            safe = text if text == " " else html.escape(clean(text))
            parts.append(safe if kind == "equal" else f'<b class="{kind}">{safe}</b>')
        lines.append(f'<div class="{name}" dir="auto">{"".join(parts)}</div>')
    return "".join(lines)


def _pieces(steps: Sequence[Step], hypothesis: bool) -> Iterator[tuple[str, str]]:
    """Text of one side in runs of one kind, blanks where they are written."""
    last = ""
    for kind, run in groupby(steps, key=lambda s: s.kind):
        text = ""
        for step in run:
            token = (step.hypothesis if hypothesis else step.reference) or _gap(step.reference or step.hypothesis)
            text += (" " if needs_blank(last, token) else "") + token
            last = token
        blank = len(text) - len(text.lstrip(" "))
        if blank:
            yield " ", "equal"
        yield text[blank:], kind


def _gap(other: str) -> str:
    return WIDE_GAP if is_wide(other[-1]) else GAP * len(other)
