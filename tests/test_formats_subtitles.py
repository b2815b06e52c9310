"""Subtitle layout: line width, balance, sentence boundaries, reading time, channels."""

import unicodedata
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from vermilion.formats import SubtitleOptions, cues, render
from vermilion.formats.timing import SentenceClock
from vermilion.formats.width import atoms, clean, display_width, may_start_line, wrap
from vermilion.transcript import Sentence, Transcript, Word

alphabet = st.sampled_from(
    list("abcdefg XYZ 12 你好世界我们今天，。！？、；,.!? “”（）()\"'-—…안녕하세요ก็ดีשלוםée\u0301👍🏽👩‍👧 ")
)
wild = st.lists(alphabet, max_size=150).map("".join).map(clean)
limits = st.integers(8, 60)


def timed(text, start=0.0, per_word=0.3):
    """A sentence whose words lack marks and capitals, as the recogniser gives them."""
    pieces, current = [], ""
    for c in text:
        if unicodedata.east_asian_width(c) in "WF" or not c.isalnum():
            pieces, current = [*pieces, current, c], ""
        else:
            current += c
    spoken = [p.lower() for p in [*pieces, current] if p.isalnum()]
    words = [
        Word(w, round(start + i * per_word, 3), round(start + (i + 1) * per_word, 3)) for i, w in enumerate(spoken)
    ]
    return Sentence(text, start, start + max(1, len(spoken)) * per_word, words)


@given(wild, limits)
@settings(deadline=None)
def test_atoms_cover_the_text(text, limit):
    pieces = atoms(text, limit)
    assert "".join(text[p.start : p.end] for p in pieces) == text


@given(wild, limits)
@settings(deadline=None)
def test_lines_keep_the_width_and_the_text(text, limit):
    lines = wrap(text, limit)
    assert "".join("".join(lines).split()) == "".join(text.split())
    single = {text[p.start : p.end].strip() for p in atoms(text, limit)}
    for line in lines:
        assert line == line.strip()
        assert display_width(line) <= limit or line in single


@given(wild, limits)
@settings(deadline=None)
def test_no_mark_begins_a_line_and_no_latin_word_is_broken(text, limit):
    lines = wrap(text, limit)
    at = 0
    for previous, line in pairwise(lines):
        at = text.index(previous, at) + len(previous)
        assert may_start_line(line[0])
        assert unicodedata.category(line[0]) not in {"Mn", "Mc", "Me"}
        inside = previous[-1].isalpha() and line[0].isalpha() and previous[-1].isascii() and line[0].isascii()
        assert not inside or text[at] == " "


def test_lines_are_balanced():
    for text in (
        "Hello there my friend how are you doing on this fine day",
        "今天的天气非常好我们一起去公园散步然后回家吃饭看电视",
    ):
        first, second = wrap(text, 42)
        assert abs(display_width(first) - display_width(second)) <= 10
    assert wrap("Well, I never thought that it would end.", 30) == ["Well, I never thought", "that it would end."]
    assert wrap("When the rain had ended, we went out again.", 36) == ["When the rain had ended,", "we went out again."]


def test_closing_and_opening_marks_stay_with_their_words():
    assert wrap("他说：“好的。”然后走了", 12)[0] in ("他说：", "他说：“好的。”")
    assert all(not line.startswith(("，", "。", "”")) for line in wrap("一二三四，五六七八。九十一二", 8))
    assert wrap("hello , world", 8) == ["hello ,", "world"]


def test_scripts_without_blanks_are_cut_only_when_too_long():
    assert wrap("สวัสดี ครับ", 20) == ["สวัสดี ครับ"]
    lines = wrap("สวัสดีครับผมชื่อสมชายและผมมาจากกรุงเทพ", 20)
    assert len(lines) == 2
    assert all(display_width(line) <= 20 for line in lines)
    assert wrap("안녕하세요 여러분 반갑습니다", 16) == ["안녕하세요", "여러분", "반갑습니다"]


@st.composite
def recordings(draw):
    sentences, at = [], 0.0
    for _ in range(draw(st.integers(0, 6))):
        at += draw(st.floats(0, 3))
        sentence = timed(draw(wild), at, draw(st.sampled_from([0.0, 0.05, 0.3, 2.0])))
        sentences.append(sentence if draw(st.booleans()) else Sentence(sentence.text, sentence.start, sentence.end))
        at = max(at, sentence.end)
    return Transcript("x", at + draw(st.floats(0, 2)), "", sentences)


@given(recordings(), st.sampled_from([1, 10]))
@settings(max_examples=150, deadline=None)
def test_cues_are_ordered_apart_and_within_limits(transcript, step):
    options = SubtitleOptions()
    found = cues(transcript, options, step_ms=step)
    for cue in found:
        assert 0 <= cue.start_ms < cue.end_ms
        assert cue.start_ms % step == cue.end_ms % step == 0
        assert 1 <= len(cue.lines) <= options.max_lines
        assert cue.end_ms - cue.start_ms <= options.max_duration * 1000 + step
        assert all(line for line in cue.lines)
    assert all(a.end_ms <= b.start_ms for a, b in pairwise(found))
    texts = "".join("".join(c.lines) for c in found)
    sentences = sorted(transcript.sentences, key=lambda s: s.start)
    assert "".join(texts.split()) == "".join("".join(s.text.split()) for s in sentences)


@given(st.lists(st.tuples(st.floats(-5, 60), st.floats(-5, 60), wild), max_size=8))
@settings(deadline=None)
def test_sentences_that_overlap_or_are_reversed_still_give_ordered_cues(rows):
    found = cues(Transcript("x", 60, "", [Sentence(t, a, b) for a, b, t in rows]))
    assert all(c.start_ms < c.end_ms for c in found)
    assert all(a.end_ms <= b.start_ms for a, b in pairwise(found))


def test_a_cue_never_spans_two_sentences():
    sentences = [timed("好。", 0, 0.2), timed("是的。", 0.2, 0.2), timed("Yes.", 0.6, 0.3)]
    assert [c.lines for c in cues(Transcript("x", 5, "", sentences))] == [("好。",), ("是的。",), ("Yes.",)]


def test_long_sentences_are_divided_at_marks_with_the_times_of_their_words():
    text = (
        "When the rain had finally ended after three long days, we went out into the garden again, and all was green."
    )
    sentence = timed(text)
    found = cues(Transcript("x", 60, "", [sentence]))
    assert [" ".join(c.lines) for c in found][0].endswith("days,")
    assert len(found) == 2
    we = next(w for w in sentence.words if w.text == "we")
    assert found[1].start_ms == round(we.start * 1000)


def test_a_silence_divides_a_cue():
    words = [Word("one", 0, 0.4), Word("two", 5, 5.4)]
    found = cues(Transcript("x", 8, "", [Sentence("One two.", 0, 5.4, words)]))
    assert [(c.lines, c.start_ms) for c in found] == [(("One",), 0), (("two.",), 5000)]


def test_a_cue_is_held_until_it_can_be_read_or_the_next_begins():
    fast = Sentence("今天的天气非常好我们去公园", 0, 0.5)  # 26 columns: 1.3 s at 20 columns a second
    assert cues(Transcript("x", 10, "", [fast]))[0].end_ms == 1300
    assert cues(Transcript("x", 10, "", [fast, Sentence("好", 0.9, 2)]))[0].end_ms == 900
    assert cues(Transcript("x", 1.0, "", [fast]))[0].end_ms == 1000


def test_silence_inside_a_segment_is_not_subtitled():
    words = [Word("hello", 20, 20.5)]
    cue = cues(Transcript("x", 60, "", [Sentence("Hello.", 0, 60, words)]))[0]
    assert (cue.start_ms, cue.end_ms) == (19500, 21000)


def test_channels_are_labelled_and_laid_out_apart():
    sentences = [
        Sentence("a <b> & c " * 6, 0, 4, channel=0),
        Sentence("对", 1, 2, channel=1),
    ]
    transcript = Transcript("x", 5, "", sentences)
    assert "[Ch 2] 对" in render(transcript, "srt")
    vtt = render(transcript, "vtt")
    assert "<v Ch 1>a &lt;b&gt; &amp; c" in vtt
    assert ",Ch 2,Ch 2,0,0,0,,[Ch 2] 对" in render(transcript, "ass")
    for line in render(transcript, "srt").splitlines():
        assert display_width(line) <= 42


def test_hours_are_written_in_full():
    text = render(Transcript("x", 400000, "", [Sentence("late", 363599.9995, 363601)]), "srt")
    assert "101:00:00,000 --> 101:00:01,000" in text


@given(wild, st.integers(0, 5))
@settings(deadline=None)
def test_word_times_carry_over_to_the_text(text, start):
    sentence = timed(text, start)
    clock = SentenceClock(text, sentence.words, sentence.start, sentence.end)
    at, positions = 0, []
    for word in sentence.words:
        folded = text.lower()
        at = folded.index(word.text, at)
        positions.append(clock.start_of(at))
        at += len(word.text)
    if len(text.lower()) == len(text):
        assert all(abs(p - w.start) < 1e-9 for p, w in zip(positions, sentence.words, strict=True))
    starts = [clock.start_of(i) for i in range(len(text))]
    assert all(a <= b + 1e-9 for a, b in pairwise(starts))


def test_words_that_the_text_lacks_do_not_upset_the_rest():
    words = [Word("um", 0, 1), Word("hello", 1, 2), Word("xyz", 2, 3), Word("world", 3, 4)]
    clock = SentenceClock("Hello, world!", words, 0, 5)
    assert (clock.start_of(0), clock.end_of(6), clock.start_of(7), clock.end_of(13)) == (1, 2, 3, 4)


def test_sentences_without_words_take_those_of_the_transcript():
    text = (
        "When the rain had finally ended after three long days, we went out into the garden again, and all was green."
    )
    sentence = timed(text)
    bare = Transcript("x", 60, "", [Sentence(text, sentence.start, sentence.end)], words=sentence.words)
    assert cues(bare) == cues(Transcript("x", 60, "", [sentence]))


def test_sentences_that_begin_together_can_both_be_read():
    said = [Sentence("Good morning everybody", 1.0, 3.0), Sentence("Hello", 1.0, 2.5), Sentence("Later", 5.0, 6.0)]
    found = cues(Transcript("a", 10.0, sentences=said))
    assert len(found) == 3
    assert all(c.end_ms - c.start_ms >= 400 for c in found)
    assert found[0].end_ms <= found[1].start_ms
