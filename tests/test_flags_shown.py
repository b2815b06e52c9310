"""Flags on their way to readers: warnings, tables, the server's answers and the page's two languages."""

import json
import re
from importlib.resources import files
from types import SimpleNamespace

import numpy as np
import pytest

from vermilion.flags import MEANINGS, RATE_LIMITED, REPETITION, RETRIED, ROUTED
from vermilion.formats import render
from vermilion.guard_remarks import MOST_PLACES, guard_warnings
from vermilion.pipeline import Pipeline
from vermilion.server.openai_format import verbose
from vermilion.server.schemas import TranscriptionVerbose
from vermilion.transcript import Recognition, Sentence, Span, Transcript


def unit(start, end, *flags):
    return SimpleNamespace(span=Span(start, end), flags=list(flags))


def transcript(*flags):
    said = [Sentence("No no.", 0.0, 1.0, flags=list(flags)), Sentence("Yes.", 1.0, 2.0)]
    return Transcript("a.wav", 2.0, "No no. Yes.", said, [Span(0.0, 2.0)], flags=list(flags))


def test_warnings_say_where_a_guard_acted():
    units = [unit(1, 2), unit(12.4, 18, REPETITION, RETRIED), unit(20, 21, ROUTED), unit(30, 31, RATE_LIMITED)]
    assert guard_warnings(units) == [
        "12.4–18.0 s: a repetition loop was cut out of the text",
        "30.0–31.0 s: the text grew faster than anybody speaks and was stopped",
    ]
    assert guard_warnings([unit(1, 2), unit(3, 4, ROUTED)]) == []


def test_warnings_of_hours_are_few():
    [warning] = guard_warnings([unit(i, i + 1, RETRIED) for i in range(500)])
    assert warning.count(" s,") == MOST_PLACES - 1
    assert f"and {500 - MOST_PLACES} more: " in warning


def test_verbose_answers_have_flags_only_where_there_are_some():
    first, second = verbose(transcript(REPETITION), frozenset({"segment"}))["segments"]
    assert first["flags"] == [REPETITION]
    assert "flags" not in second, "without remarks the shape is OpenAI's own"
    TranscriptionVerbose.model_validate(verbose(transcript(REPETITION), frozenset({"segment"})))


def test_json_keeps_flags_and_subtitles_have_none():
    flagged = transcript(REPETITION)
    read = Transcript.from_dict(json.loads(json.dumps(flagged.to_dict())))
    assert (read.flags, [s.flags for s in read.sentences]) == ([REPETITION], [[REPETITION], []])
    assert REPETITION not in render(flagged, "srt")


def test_tables_keep_the_flags_of_sentences(tmp_path):
    pytest.importorskip("pyarrow", reason="needs pip install vermilion[parquet]")
    from vermilion.cluster.tables import arrow, write_table

    write_table([{"id": "a", **transcript(RETRIED).to_dict()}], tmp_path / "a.parquet")
    [row] = arrow().parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert row["flags"] == [RETRIED]
    assert [s["flags"] for s in row["sentences"]] == [[RETRIED], []]


def test_the_page_explains_every_flag_in_both_languages():
    script = (files("vermilion.server") / "page" / "strings.js").read_text("utf-8")
    blocks = re.findall(r"flags: \{(.*?)\n    \}", script, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        known = dict(re.findall(r'"?([a-z-]+)"?: "([^"]+)"', block))
        assert known.keys() == MEANINGS.keys()
        assert all(known.values())
    assert dict(re.findall(r'"?([a-z-]+)"?: "([^"]+)"', blocks[0])) == MEANINGS


def test_a_text_given_up_leaves_its_flag_and_its_place():
    class GivesUp:
        def recognize(self, recordings, options=None):
            return [Recognition("", 0.0, flags=[REPETITION]) for _ in recordings]

    found = Pipeline(None, None, GivesUp(), None).transcribe((np.zeros(16000, np.float32), 16000))
    assert (found.sentences, found.flags) == ([], [REPETITION])
    assert found.warnings == ["0.0–1.0 s: a repetition loop was cut out of the text"]
