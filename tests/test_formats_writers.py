"""Writers: what is written reads back with the same times and texts, by our readers and by other people's."""

import json
import math
import re
import sys
from itertools import pairwise
from pathlib import Path

import pysubs2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from praatio.utilities.textgrid_io import parseTextgridStr

from vermilion.errors import AudioError, FormatError, OptionsError
from vermilion.formats import (
    FORMATS,
    FormatOptions,
    SubtitleOptions,
    TextGridOptions,
    append_jsonl,
    format_of,
    read,
    render,
    save,
)
from vermilion.formats.files import encoded
from vermilion.formats.subtitle_files import parse_ass, parse_srt, parse_vtt
from vermilion.formats.tabular import parse_ctm, parse_rttm, parse_tsv
from vermilion.formats.textgrid import parse_textgrid
from vermilion.formats.width import clean
from vermilion.transcript import Event, Failure, LanguageSpan, Sentence, Span, Transcript, Word

EXACT = SubtitleOptions(layout="sentences")
SNIPPETS = [
    "-->",
    "\n\n",
    "\t",
    '"',
    '""',
    "<b>",
    "&amp;",
    "{\\an8}",
    "\\N",
    "你好，",
    "世界。",
    "שלום",
    "👩‍👩‍👧",
    "e\u0301",
    "item [1]:",
]
texts = st.one_of(
    st.text(max_size=30),
    st.lists(st.one_of(st.sampled_from(SNIPPETS), st.text(max_size=5)), max_size=8).map("".join),
)
milliseconds = st.integers(0, 4_000_000)


@st.composite
def spans(draw, max_size=6):
    """Ordered, non-overlapping (start, end) in ms."""
    edges = sorted(draw(st.lists(milliseconds, min_size=2, max_size=2 * max_size, unique=True)))
    return list(zip(edges[::2], edges[1::2], strict=False))


@st.composite
def transcripts(draw, texts=texts):
    times = draw(spans())
    sentences = [
        Sentence(
            draw(texts),
            a / 1000,
            b / 1000,
            [Word(draw(texts), a / 1000, b / 1000, draw(st.none() | st.floats(0, 1)))],
            confidence=draw(st.floats(0, 1)),
            language=draw(st.sampled_from([None, "zh", "en"])),
        )
        for a, b in times
    ]
    duration = (times[-1][1] if times else 0) / 1000 + draw(st.floats(0, 10))
    words = [w for s in sentences for w in s.words]
    return Transcript("a/some talk.wav", duration, "".join(s.text for s in sentences), sentences, words=words)


def written(transcript):
    """(text, start ms, end ms) of the sentences that have text."""
    sentences = transcript.sentences or [Sentence(transcript.text, 0, transcript.duration)]
    rows = [(clean(s.text), round(s.start * 1000), round(s.end * 1000)) for s in sentences]
    return [row for row in rows if row[0]]


def in_ms(entries):
    return [(text, round(start * 1000), round(end * 1000)) for text, start, end in entries]


def stored(text):
    """What a file gives back: lone surrogates cannot be stored."""
    return encoded(text).decode("utf-8")


@given(transcripts())
@settings(deadline=None)
def test_srt_and_vtt_give_the_sentences_back(transcript):
    srt = in_ms(parse_srt(render(transcript, "srt", EXACT)))
    assert srt == [(t.replace("-->", "→"), a, b) for t, a, b in written(transcript)]
    assert in_ms(parse_vtt(render(transcript, "vtt", EXACT))) == written(transcript)


@given(transcripts())
@settings(deadline=None)
def test_srt_and_vtt_have_the_same_times_for_pysubs2(transcript):
    for kind in ("srt", "vtt"):
        text = render(transcript, kind, EXACT)
        events = pysubs2.SSAFile.from_string(text, kind).events if written(transcript) else []
        assert [(e.start, e.end) for e in events] == [(a, b) for _, a, b in written(transcript)]


@given(transcripts())
@settings(deadline=None)
def test_srt_entries_are_numbered_and_one_blank_line_apart(transcript):
    text = render(transcript, "srt")
    assert "\n\n\n" not in text
    assert not text.endswith("\n\n")
    blocks = text.split("\n\n") if text else []
    assert [b.split("\n")[0] for b in blocks] == [str(i + 1) for i in range(len(blocks))]


@given(transcripts())
@settings(deadline=None)
def test_ass_gives_texts_back_with_times_within_10_ms(transcript):
    text = render(transcript, "ass", EXACT)
    entries, expected = in_ms(parse_ass(text)), written(transcript)
    assert [e[0] for e in entries] == [e[0] for e in expected]
    for (_, a, b), (_, x, y) in zip(entries, expected, strict=True):
        assert abs(a - x) <= 10
        assert abs(b - y) <= 10
    events = pysubs2.SSAFile.from_string(text, "ass").events
    assert [(e.start, e.end) for e in events] == [e[1:] for e in entries]


@given(transcripts())
@settings(deadline=None)
def test_tsv(transcript):
    assert in_ms(parse_tsv(render(transcript, "tsv"))) == written(transcript)


@given(transcripts())
@settings(deadline=None)
def test_ctm(transcript):
    entries = in_ms(parse_ctm(render(transcript, "ctm")))
    words = [(clean(w.text).replace(" ", "_"), round(w.start * 1000), round(w.end * 1000)) for w in transcript.words]
    assert entries == [w for w in words if w[0]]


@given(transcripts())
@settings(deadline=None)
def test_textgrid_gives_the_sentences_back_without_gaps(transcript):
    text = render(transcript, "TextGrid")
    assert in_ms(parse_textgrid(text)["sentence"]) == written(transcript)
    rows = [(float(a), float(b)) for a, b in re.findall(r"xmin = (\S+)\n\s+xmax = (\S+)\n\s+text", text)]
    end = float(re.search(r"\nxmax = (\S+)", text)[1])
    assert rows[0][0] == 0.0
    assert rows[-1][1] == end
    for (_, left), (right, after) in pairwise(rows):
        assert left == right or (left == end and right == 0.0)  # the next tier
        assert right < after


# its parser looks for "item [" and "intervals [" inside labels too
@given(transcripts(texts.map(lambda t: t.replace("[", "("))))
@settings(max_examples=50, deadline=None)
def test_textgrid_reads_in_praatio(transcript):
    read_back = parseTextgridStr(render(transcript, "TextGrid"))
    tier = next(t for t in read_back["tiers"] if t["name"] == "sentence")
    rows = [(text, round(float(a) * 1000), round(float(b) * 1000)) for a, b, text in tier["entries"]]
    assert rows == [(t.strip(), a, b) for t, a, b in written(transcript)]


@given(transcripts())
@settings(deadline=None)
def test_json_and_jsonl_give_the_whole_result_back(transcript):
    for kind in ("json", "jsonl"):
        text = render(transcript, kind)
        again = Transcript.from_dict(json.loads(text))
        assert [(s.text, s.start, s.end) for s in again.sentences] == [
            (s.text, round(s.start * 1000) / 1000, round(s.end * 1000) / 1000) for s in transcript.sentences
        ]
        assert again.text == transcript.text
    assert len(text.rstrip("\n").splitlines()) <= 1 or "\x0b" in text or "\x0c" in text or "\x1c" in text


@given(transcripts())
@example(Transcript("x", 1.0, "\ud800 你好"))
@settings(max_examples=25, deadline=None)
def test_every_format_is_written_and_read(tmp_path_factory, transcript):
    folder = tmp_path_factory.mktemp("out")
    for kind in FORMATS:
        path = save(transcript, folder / "new" / f"talk.{kind}")
        content = path.read_bytes()
        assert not content.startswith(b"\xef\xbb\xbf")
        assert content.decode("utf-8") == stored(render(transcript, kind))
        if kind != "txt":
            read(path)
    assert sorted(p.name for p in path.parent.iterdir()) == sorted(f"talk.{kind}" for kind in FORMATS)


intervals = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=12)


@given(intervals, st.floats(0, 0.06))
@settings(deadline=None)
def test_textgrid_of_overlapping_and_reversed_intervals_is_clipped(times, duration):
    sentences = [
        Sentence(f"s{i}", a / 1000, b / 1000, [Word("w", a / 1000, b / 1000)]) for i, (a, b) in enumerate(times)
    ]
    tiers = parse_textgrid(render(Transcript("x", duration, "", sentences), "TextGrid"))
    for entries in tiers.values():
        assert all(e.start < e.end for e in entries)
        assert all(a.end <= b.start for a, b in pairwise(entries))
        assert all(e.end <= duration or duration < 0.001 for e in entries)


def test_textgrid_overlaps_keep_both_texts():
    sentences = [Sentence("long", 0, 10), Sentence("inside", 2, 5), Sentence("a", 6, 8), Sentence("b", 6, 8)]
    entries = parse_textgrid(render(Transcript("x", 10, "", sentences), "TextGrid"))["sentence"]
    assert entries == [("long", 0, 2), ("inside", 2, 5), ("a", 6, 7), ("b", 7, 8)]


def test_textgrid_with_confidence_and_channels():
    sentences = [Sentence("hi", 0, 2, [Word("hi", 0, 1)], 0.72849, channel=0), Sentence("yo", 1, 3, channel=1)]
    tiers = parse_textgrid(render(Transcript("x", 4, "", sentences), "textgrid", TextGridOptions(confidence=True)))
    assert list(tiers) == ["sentence ch1", "token ch1", "sentence ch2"]
    assert tiers["sentence ch1"] == [("hi\n0.728", 0, 2)]


def test_textgrid_short_form_is_read():
    short = (
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n2.5\n<exists>\n1\n"IntervalTier"\n"w"\n0\n2.5\n2\n'
    )
    assert parse_textgrid(short + '0\n1\n"say ""1 2"""\n1\n2.5\n""\n') == {"w": [('say "1 2"', 0, 1)]}


def full():
    return Transcript(
        "my talk.final.wav",
        12.0,
        "你好。Hello there.",
        [
            Sentence(
                "你好。", 0.5, 1.5, [Word("你", 0.6, 0.9, 0.91), Word("好", 0.9, 1.2)], 0.9, "zh", "mandarin", 0.8
            ),
            Sentence("Hello there.", 1.5, 2.0105, [Word("hello", 1.6, 1.8, math.nan)], 0.8, "en", None, 0.7),
        ],
        segments=[Span(0.5, 2.0105), Span(3, 4)],
        events=[Event("speech", 0.5, 2), Event("music", 5, 6), Event("singing", 5.5, 6)],
        languages=[LanguageSpan("zh", "mandarin", 0.9, 0.5, 1.6), LanguageSpan("en", None, 0.9, 1.6, 2.0105)],
        failures=[Failure("my talk", AudioError("broken"), "asr", Span(3, 4))],
        words=[Word("你", 0.6, 0.9, 0.91), Word("好", 0.9, 1.2), Word("hello", 1.6, 1.8, math.nan)],
        models={"asr": "mini"},
    )


def test_rttm_names_languages_and_keeps_music_apart():
    text = render(full(), "rttm")
    assert text.splitlines() == [
        "SPEAKER my_talk.final 1 0.500 1.510 <NA> <NA> zh-mandarin <NA> <NA>",
        "SPEAKER my_talk.final 1 3.000 1.000 <NA> <NA> speech <NA> <NA>",
        "NON-SPEECH my_talk.final 1 5.000 1.000 <NA> music music <NA> <NA>",
        "NON-SPEECH my_talk.final 1 5.500 0.500 <NA> other singing <NA> <NA>",
    ]
    assert parse_rttm(text) == [("zh-mandarin", 0.5, 2.01), ("speech", 3, 4)]


def test_ctm_leaves_unknown_confidence_out():
    assert render(full(), "ctm").splitlines() == [
        "my_talk.final 1 0.600 0.300 你 0.910",
        "my_talk.final 1 0.900 0.300 好",
        "my_talk.final 1 1.600 0.200 hello",
    ]


def test_txt_has_a_line_per_segment_or_labelled_sentence():
    assert render(full(), "txt") == "你好。Hello there.\n"
    apart = Transcript("x", 5, "", [Sentence("one\ntwo", 0, 1, channel=0), Sentence("three", 1, 2, channel=1)])
    assert render(apart, "txt") == "[Ch 1] one two\n[Ch 2] three\n"


def test_json_has_no_nan_and_keeps_chinese():
    text = render(full(), "json")
    assert "NaN" not in text
    assert "你好" in text
    again = Transcript.from_dict(json.loads(text))
    assert again.words[2].confidence is None
    assert str(again.failures[0].error) == "broken"


def test_jsonl_is_appended(tmp_path):
    for _ in range(2):
        append_jsonl(full(), tmp_path / "deep" / "all.jsonl")
    assert [t.text for t in read(tmp_path / "deep" / "all.jsonl")] == [full().text] * 2


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", FORMATS)
def test_times_that_are_no_numbers_are_refused(kind, bad):
    for transcript in (
        Transcript("x", bad),
        Transcript("x", 1, "a", [Sentence("a", 0, bad)]),
        Transcript("x", 1, "a", [Sentence("a", 0, 1, [Word("a", bad, 1)])]),
        Transcript("x", 1, segments=[Span(bad, 1)]),
    ):
        with pytest.raises(FormatError):
            render(transcript, kind)


def test_negative_times_are_moved_to_zero():
    transcript = Transcript("x", 1, "a", [Sentence("a", -0.5, 0.5, [Word("a", -0.5, 0.5)])])
    for kind in ("srt", "vtt", "ass", "tsv", "ctm", "TextGrid"):
        assert "-0" not in render(transcript, kind, EXACT).replace("--", "")


def test_extensions_are_known_in_any_case_and_others_are_named():
    assert format_of("a/b.TEXTGRID") == format_of("textgrid") == "TextGrid"
    with pytest.raises(FormatError, match=r"docx.*json, jsonl, txt, srt"):
        save(Transcript("x", 1), "talk.docx")
    with pytest.raises(FormatError, match="known are"):
        save(Transcript("x", 1), "talk")
    with pytest.raises(FormatError, match="text format"):
        render(Transcript("x", 1), "png")
    with pytest.raises(FormatError, match="read back"):
        read("talk.txt")


def test_options_of_another_format_are_not_used():
    assert render(full(), "json", EXACT) == render(full(), "json", FormatOptions())


def test_empty_transcripts_give_valid_files(tmp_path):
    for kind in FORMATS:
        path = save(Transcript("silence.wav", 3.0), tmp_path / f"x.{kind}")
        if kind != "txt":
            assert read(path) is not None
    assert (tmp_path / "x.srt").read_text() == ""
    assert (tmp_path / "x.vtt").read_text() == "WEBVTT\n"


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    target = save(full(), tmp_path / "a.srt")
    before = target.read_bytes()

    def fail(self, other):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(FormatError, match="No space left"):
        save(Transcript("x", 1, "new"), target)
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


def test_an_interrupt_leaves_no_partial_file(tmp_path, monkeypatch):
    def interrupt(self, other):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(full(), tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_targets_give_typed_errors(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FormatError, match="cannot write"):
        save(full(), tmp_path / "file" / "a.srt")
    with pytest.raises(FormatError, match="cannot write"):
        save(full(), tmp_path, format="srt")
    with pytest.raises(FormatError, match="cannot read"):
        read(tmp_path / "missing.srt")


@pytest.mark.skipif(sys.platform == "win32", reason="permission bits")
def test_files_follow_the_umask(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("")
    assert save(full(), tmp_path / "a.txt").stat().st_mode == plain.stat().st_mode


def test_malformed_files_are_refused(tmp_path):
    for name, content in (
        ("a.json", "{"),
        ("a.json", "[]"),
        ("a.TextGrid", "hello"),
        ("a.TextGrid", 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0 1 <exists> 3 "IntervalTier"'),
        ("a.ctm", "one two"),
        ("a.ass", "Dialogue: 0,x,y\n"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(FormatError):
            read(tmp_path / name)


def test_published_results_and_files_are_matched(golden, tmp_path):
    """SRT and TextGrid of the published command line, from its own JSON: same entries, same times."""
    for case in ("default", "short_sentences", "no_times"):
        folder = golden / "golden" / "cli" / case
        for transcript in read(folder / "result.jsonl"):
            name = transcript.utterance_id
            ours = read(save(transcript, tmp_path / f"{name}.srt", options=EXACT))
            assert in_ms(ours) == in_ms(read(folder / "asr_srt" / f"{name}.srt"))
            theirs = folder / "asr_tg" / f"{name}.TextGrid"
            if theirs.exists():
                options = TextGridOptions(confidence=True)
                assert read(save(transcript, tmp_path / f"{name}.TextGrid", options=options)) == read(theirs)


def test_subtitle_options_are_checked():
    for bad in (
        {"max_line_width": 3},
        {"max_lines": 0},
        {"max_duration": math.nan},
        {"layout": "x"},
        {"min_duration": 9},
    ):
        with pytest.raises(OptionsError):
            SubtitleOptions(**bad)
