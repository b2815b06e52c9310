"""Marks and word times by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vermilion.evaluation import punctuation, timing
from vermilion.evaluation.punctuation import MarkScore, marked, score_text, unmarked
from vermilion.transcript import Word


def test_words_and_their_marks():
    words, marks = marked("你好，world. It's 3.5, e.g. “yes”?! 好")
    assert words == ["你", "好", "WORLD", "ITS", "35", "EG", "YES", "好"]
    assert marks == [None, "comma", "period", None, "comma", "period", "question", None]
    assert marked("，。") == ([], [])
    assert marked("a,你b") == (["A", "你", "B"], ["comma", None, None])
    assert unmarked("Hello, 世界。OK, go!") == "hello世界ok go"


def test_marks_by_hand():
    got = score_text("你好，世界。是吗？对！", "你好。世界，是吗？对！")
    assert got.marks["comma"] == MarkScore(0, 1, 1)
    assert got.marks["period"] == MarkScore(0, 1, 1)
    assert got.marks["question"] == got.marks["exclamation"] == MarkScore(1, 0, 0)
    assert got.micro == MarkScore(1, 2, 2)
    assert (got.micro.precision, got.micro.recall, got.micro.f1) == pytest.approx((1 / 3,) * 3)
    assert got.changed == 0


def test_full_width_and_ascii_are_the_same_and_case_does_not_count():
    got = score_text("Hello, world. Ok?", "hello，World。OK？")
    assert got.micro == MarkScore(3, 0, 0)


def test_marks_where_the_words_differ():
    got = score_text("今天很好，走吧。", "今天好，走吧了。")
    assert got.changed == 2
    assert got.marks["comma"] == MarkScore(1, 0, 0)
    assert got.marks["period"] == MarkScore(0, 1, 1)
    assert (got + got).changed == 4
    assert punctuation.score([]).micro.f1 == 0.0


@given(st.text(alphabet="你好ab ，。,.?3"))
def test_a_text_against_itself_has_no_error(text):
    got = score_text(text, text)
    assert (got.micro.extra, got.micro.lost, got.changed) == (0, 0, 0)
    assert marked(unmarked(text))[0] == marked(unmarked(unmarked(text)))[0]


def test_word_times_by_hand():
    true = [Word("Hello,", 1.0, 1.4), Word("big", 1.5, 1.7), Word("world", 2.0, 2.5)]
    got = [Word("hello", 1.1, 1.4), Word("world", 1.9, 2.8)]
    found = timing.score_words(true, got)
    assert found.starts == pytest.approx((0.1, -0.1))
    assert found.ends == pytest.approx((0.0, 0.3))
    assert found.coverage == pytest.approx(2 / 3)
    assert (found.mean(), found.bias(), found.p95()) == pytest.approx((0.1, 0.0, 0.1))
    assert found.mean("ends") == pytest.approx(0.15)
    assert found.p95("ends") == pytest.approx(0.285)
    assert (found.median("ends"), found.within(0.1), found.within(0.05, "ends")) == pytest.approx((0.15, 1.0, 0.5))


def test_chinese_words_score_single_characters():
    true = [Word("你好", 0.0, 1.0), Word("世界", 1.0, 2.0)]
    got = [Word("你", 0.1, 0.5), Word("好", 0.5, 0.9), Word("世", 1.0, 1.5), Word("界", 1.5, 2.1)]
    found = timing.score([(true, got), (true, got)])
    assert found.starts == pytest.approx((0.1, 0.0) * 2)
    assert found.ends == pytest.approx((-0.1, 0.1) * 2)
    assert found.coverage == 1.0


def test_a_word_counts_only_if_all_of_it_was_found():
    true = [Word("press", 1.0, 1.4), Word("pound", 1.5, 1.9)]
    assert timing.score_words(true, [Word("dress", 0.0, 0.2), Word("pond", 0.3, 0.4)]).coverage == 0.0
    found = timing.score_words(true, [Word("press", 1.1, 1.4), Word("ground", 1.5, 1.9)])
    assert (found.starts, found.ends) == (pytest.approx((0.1,)), pytest.approx((0.0,)))
    joined = timing.score_words(true, [Word("presspound", 1.0, 1.9)])  # the edge between them is not known
    assert (joined.starts, joined.ends) == ((0.0,), (0.0,))


def test_no_words_no_figures():
    found = timing.score_words([Word("…", 0, 1)], [])
    assert (found.words, found.mean(), found.p95(), found.bias(), found.coverage) == (0, None, None, None, 0.0)
