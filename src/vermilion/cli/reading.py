"""Results as people read them: transcripts as lines, everything else as tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vermilion.text import join_texts
from vermilion.transcript import Sentence, Span, Transcript, Word

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

CLAUSE_ENDS = ("，", ",", "、", "；", ";", "：", ":")


def stamp(seconds: float, digits: int = 1) -> str:
    """`65.24` → `01:05.2`, `3661` → `1:01:01.0`."""
    scale = 10**digits
    minutes, left = divmod(round(seconds * scale), 60 * scale)
    hours, minutes = divmod(minutes, 60)
    clock = f"{minutes:02d}:{left // scale:02d}.{left % scale:0{digits}d}"
    return f"{hours}:{clock}" if hours else clock


def transcript_text(transcript: Transcript) -> Text:
    """One line per sentence (clauses joined): time, language where it changes, text."""
    from rich.text import Text

    text = Text()
    last = None
    mixed = len({(s.language, s.dialect) for s in transcript.sentences}) > 1
    for sentence in _joined(transcript.sentences):
        label = _label(sentence)
        text.append(f"[{stamp(sentence.start)}] ", style="cyan")
        if sentence.channel is not None:
            text.append(f"channel {sentence.channel + 1}: ", style="magenta")
        if mixed and label and label != last:
            text.append(f"({label}) ", style="green")
        text.append(sentence.text + "\n")
        last = label
    return text


def _joined(sentences: Sequence[Sentence]) -> list[Sentence]:
    """Join clauses: the restorer ends a sentence at every mark, commas included."""
    lines: list[Sentence] = []
    for sentence in sentences:
        last = lines[-1] if lines else None
        if last is not None and last.text[-1:] in CLAUSE_ENDS and _same_voice(last, sentence):
            lines[-1] = replace(last, text=join_texts([last.text, sentence.text]), end=sentence.end)
        else:
            lines.append(sentence)
    return lines


def _same_voice(left: Sentence, right: Sentence) -> bool:
    return (left.channel, _label(left)) == (right.channel, _label(right)) and right.start - left.end < 1


def _label(sentence: Sentence) -> str:
    return " ".join(part for part in (sentence.language, sentence.dialect) if part)


def languages(transcript: Transcript) -> str:
    """The languages of a transcript, the longest first: `zh mandarin, en`."""
    lasting: dict[str, float] = {}
    for span in transcript.languages:
        label = f"{span.language} {span.dialect}" if span.dialect else span.language
        lasting[label] = lasting.get(label, 0.0) + span.end - span.start
    return ", ".join(sorted(lasting, key=lambda label: -lasting[label]))


def spans_table(spans: Iterable[tuple[str, Span]]) -> Table:
    """Label, start, end, length."""
    table = _table("", "start", "end", "seconds", right=3)
    for label, span in spans:
        table.add_row(label, stamp(span.start, 2), stamp(span.end, 2), f"{span.duration:.2f}")
    return table


def words_table(words: Sequence[Word]) -> Table:
    """Start, end, word and its confidence where known."""
    table = _table("word", "start", "end", "confidence", right=3)
    for word in words:
        sure = "" if word.confidence is None else f"{word.confidence:.2f}"
        table.add_row(word.text, f"{word.start:.2f}", f"{word.end:.2f}", sure)
    return table


def rows_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Plain columns."""
    table = _table(*columns, right=0)
    for row in rows:
        table.add_row(*row)
    return table


def _table(*columns: str, right: int) -> Table:
    """A table whose last `right` columns are numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, column in enumerate(columns):
        number = i >= len(columns) - right
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    return table


def size(count: int | None) -> str:
    """`2840000000` → `2.8 GB`."""
    if count is None:
        return "?"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f}".removesuffix(".0") + f" {unit}"
    return f"{count} bytes"
