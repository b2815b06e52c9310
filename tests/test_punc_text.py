"""Units, text rules, length limit, windows: the pure parts of punctuation."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vermilion.punc.limit import choose_labels, limited_labels, text_size
from vermilion.punc.rules import punctuate
from vermilion.punc.units import find_units, joined_by_blank, takes_mark, without_marks
from vermilion.punc.windows import group_windows, split_windows

WILD = st.text(st.one_of(st.sampled_from("你好a,.，。 ？1'\"（）\u0301\u200d😀é%"), st.characters()), max_size=40)


def cut(text):
    return [text[u.start : u.end] for u in find_units(text)]


def put(text, *marks):
    units = find_units(text)
    return punctuate(text, units, [*marks, *[""] * (len(units) - len(marks))])


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("3.14是圆周率", ["3.14", "是", "圆", "周", "率"]),
        ("温度25℃左右", ["温", "度", "25℃", "左", "右"]),
        ("see www.example.com/a-b now", ["see", "www.example.com/a-b", "now"]),
        ("don't 你", ["don't", "你"]),
        ("我说（你好）世界", ["我", "说", "（你", "好）", "世", "界"]),
        ("《hello》world", ["《hello》", "world"]),
        ("你好，世界。", ["你", "好，", "世", "界。"]),
        ("好\u0301x", ["好\u0301", "x"]),
        ("cafe\u0301 ok", ["cafe\u0301", "ok"]),
        ("50%的", ["50%", "的"]),
        ("こんにちは", ["こんにちは"]),
        ("你好😀世界", ["你", "好", "😀", "世", "界"]),
        ("你好)hello", ["你", "好)", "hello"]),
        (" \t\n", []),
        ("", []),
    ],
)
def test_units(text, units):
    assert cut(text) == units


@given(WILD)
def test_units_cover_every_visible_character_once_and_in_order(text):
    units = find_units(text)
    covered = [i for u in units for i in range(u.start, u.end)]
    assert covered == [i for i, c in enumerate(text) if not c.isspace()]
    assert all(u.start < u.end for u in units)


@given(WILD)
def test_no_unit_begins_with_a_combining_sign_inside_a_word(text):
    for unit in find_units(text):
        if unit.start and not text[unit.start - 1].isspace():
            assert unicodedata.category(text[unit.start])[0] != "M"


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("你好，世界。", "你好 世界 "),
        ("hello, world. 3.14 e.g. yes?!", "hello  world  3.14 e.g  yes  "),
        ("www.example.com", "www.example.com"),
        ('he said "no."', 'he said "no "'),
        ("版本3.是", "版本3 是"),
        (".5 apples", ".5 apples"),
        ("a.，b", "a  b"),
    ],
)
def test_the_network_sees_blanks_for_marks(text, view):
    assert without_marks(text) == view


def test_many_marks_take_linear_time():
    text = "." * 200_000
    assert without_marks(text).strip() == ""
    assert len(find_units(text)) == 1


@pytest.mark.parametrize(
    ("text", "unit", "allowed"),
    [
        ("hello world", 0, True),
        ("hello, world", 0, False),
        ("你好 ， 世界", 1, False),
        ("你好：世界", 1, False),
        ("( hello", 0, False),
        ("5 %", 0, False),
        ("他说“好", 1, True),
    ],
)
def test_places_that_take_a_mark(text, unit, allowed):
    assert takes_mark(text, find_units(text)[unit]) is allowed


@pytest.mark.parametrize(
    ("text", "marks", "want"),
    [
        # DEFECTS, punc, "text rules"
        ("ok没问题", ["，", "", "", "。"], "Ok，没问题。"),
        ("10 apples", ["，", "。"], "10, apples."),
        ("a1 b", ["，"], "A1, b"),
        ("He said i", ["", "", "。"], "He said I."),
        ("i i", ["", ""], "I I"),
        ("i i i", [], "I I I"),
        ("a b c", ["，", "，", "。"], "A, b, c."),
        ("tom met NASA and iPhone", [], "Tom met NASA and iPhone"),
        ("he said I'VE DONE IT", [], "He said I'VE DONE IT"),
        # forms of marks
        ("hello world", ["", "。"], "Hello world."),
        ("tim", ["，"], "Tim,"),
        ("x", ["。"], "X."),
        ("你好how are you", ["", "，", "", "", "？"], "你好，how are you?"),
        ("她说yes他说no", ["", "", "。", "", "", "。"], "她说yes。他说no。"),
        ("ünïcode test", ["，"], "Ünïcode, test"),
        ("it's 5 ok", ["", "，"], "It's 5, ok"),
        ("привет мир", ["，", "！"], "Привет, мир!"),
        ("你好😀", ["", "", "。"], "你好😀。"),
        ("good 😀", ["", "！"], "Good 😀!"),
        ("こんにちは世界", ["，", "", "。"], "こんにちは，世界。"),
        ("how？ fine", ["", "。"], "How？ Fine."),
        # casing
        ("so i'm here and i’ll stay", [], "So I'm here and I’ll stay"),
        ("yes no", ["！"], "Yes! No"),
        ("好i see", ["。"], "好。I see"),
        ("you say i？", [], "You say I？"),
        ("end. next", [], "End. Next"),
        ("end.next", [], "end.next"),
        ("iPhone is nice", [], "iPhone is nice"),
        ("www.example.com is up", [], "www.example.com is up"),
        ("3.5 times", [], "3.5 times"),
        ('"hello" he said', [], '"Hello" he said'),
        ("第i个", [], "第i个"),
        ("straße", [], "Straße"),
        ("ﬁne ßa", ["。"], "ﬁne. ßa"),
        ("ქართული", [], "ქართული"),
    ],
)
def test_text_rules(text, marks, want):
    assert put(text, *marks) == want


@pytest.mark.parametrize(
    ("before", "after", "blank"),
    [("o", "w", True), ("+", "a", True), ("o", "你", False), ("好", "w", False), ("o", ",", False), ("(", "a", False),
     (",", "a", True), ("，", "a", False), ("😀", "a", True), ("가", "나", True)],
)  # fmt: skip
def test_blanks_between_words(before, after, blank):
    assert joined_by_blank(before, after) is blank


def test_text_size_counts_half_for_latin():
    assert text_size("你好") == 2
    assert text_size("ab1'") == 2
    assert text_size("é +") == 2


def probabilities(rows):
    return np.asarray(rows, dtype=np.float32)


NONE, COMMA, MAYBE = [0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.6, 0.1, 0.3]


def test_the_limit_cuts_at_the_likeliest_place_and_forces_nothing_at_the_end():
    labels = limited_labels([1] * 6, probabilities([NONE, NONE, MAYBE, NONE, NONE, NONE]), 4)
    assert labels == [0, 0, 2, 0, 0, 0]
    assert limited_labels([1] * 3, probabilities([NONE, COMMA, COMMA]), 9) == [0, 1, 1]


def test_the_limit_is_left_alone_where_no_sentence_breaks_it():
    undecided = [0.4, 0.3, 0.3]  # most likely "none", although some mark is likelier than none
    rows = probabilities([undecided, NONE, NONE])
    assert choose_labels([1, 1, 1], rows, 3) == [0, 0, 0]
    assert choose_labels([1, 1, 1], rows, 0) == [0, 0, 0]
    assert choose_labels([1, 1, 1], rows, 2) == [1, 0, 0]
    assert choose_labels([], probabilities([]).reshape(0, 3), 2) == []


WEIGHTS = st.lists(st.integers(1, 99), min_size=5, max_size=5)


@given(st.lists(st.tuples(st.sampled_from([0.5, 1, 2]), WEIGHTS), min_size=1), st.sampled_from([2, 5, 12]))
def test_no_sentence_is_longer_than_the_limit(units, limit):
    sizes = [size for size, _ in units]
    rows = probabilities([[w / sum(weights) for w in weights] for _, weights in units])
    labels = choose_labels(sizes, rows, limit)
    total, count = 0.0, 0
    for size, label in zip(sizes, labels, strict=True):
        total, count = total + size, count + 1
        assert total <= limit or count == 1
        if label:
            total, count = 0.0, 0


@given(st.integers(0, 400), st.integers(2, 40), st.integers(0, 20))
def test_windows_cover_a_sequence_once(length, size, overlap):
    overlap = min(overlap, size // 2)
    windows = split_windows(3, length, size, overlap)
    assert [i for w in windows for i in range(w.keep_start, w.keep_end)] == list(range(length))
    for w in windows:
        assert w.row == 3
        assert 0 <= w.start <= w.keep_start < w.keep_end <= w.end <= length
        assert w.end - w.start <= size
    for a, b in zip(windows, windows[1:], strict=False):
        assert a.end - b.start >= overlap
    if not overlap:
        assert [w.start for w in windows] == list(range(0, length, size))


@given(st.lists(st.integers(1, 30)), st.integers(1, 100))
def test_batches_hold_every_window_and_stay_in_budget(lengths, budget):
    windows = [w for row, n in enumerate(lengths) for w in split_windows(row, n, 30, 0)]
    groups = list(group_windows(windows, budget))
    assert sorted(w.row for g in groups for w in g) == list(range(len(lengths)))
    for group in groups:
        longest = max(w.end - w.start for w in group)
        assert longest * len(group) <= budget or len(group) == 1
