"""Normalisation and error rates: the golden pairs' rules, jiwer's counts, coverage."""

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vermilion.errors import OptionsError
from vermilion.evaluation.normalisation import NORMALISATIONS, normalised, tokens
from vermilion.evaluation.recognition import Counts, Step, align, count, macro, score, score_utterance


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("今天，天气 very good。", ["今", "天", "天", "气", "VERY", "GOOD"]),
        ("open <unk> door<sil>", ["OPEN", "DOOR"]),
        ("W I F I 很快", ["WIFI", "很", "快"]),
        ("U.S.A. is 3.5 big", ["USA", "IS", "35", "BIG"]),
        ("a b c d e", ["ABCDE"]),
        ("a b c d e f", list("ABCDEF")),
        ("打A B开C", ["打", "AB", "开", "C"]),
        ("カタカナ と ﾊﾝ 々", [*"カタカナ", "と", "ﾊ", "ﾝ", "々"]),
        ("한국어 말", ["한국어", "말"]),
        ("don't STOP", ["DONT", "STOP"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("▁HELLO▁WORLD", ["HELLO", "WORLD"]),
        ("𠮷野家", ["𠮷", "野", "家"]),
        ("，。!?", []),
        ("", []),
    ],
)
def test_the_published_normalisation(text, expected):
    assert tokens(text) == expected


def test_other_normalisations():
    assert tokens("Hello, 世界!", "raw") == ["Hello,", "世", "界", "!"]
    assert tokens("I don't have twenty-five colours", "whisper-english") == ["i", "do", "not", "have", "25", "colors"]
    assert tokens("Élan, vital!", "whisper-basic") == ["élan", "vital"]
    assert tokens("ab, 世c", "report", "character") == ["A", "B", "世", "C"]
    assert tokens("世界 a", "report", "word") == ["世界", "A"]
    assert normalised("a，b c") == "AB C"
    for bad in (("x", "whisper", "mixed"), ("x", "raw", "syllable")):
        with pytest.raises(OptionsError):
            tokens(*bad)


@given(st.text(), st.sampled_from(["report", "raw"]))
def test_tokens_are_never_empty_or_blank(text, normalisation):
    assert all(t and not any(c.isspace() for c in t) for t in tokens(text, normalisation))
    assert normalisation in NORMALISATIONS


def test_an_alignment_by_kind():
    steps = align(tokens("今天天气很好"), tokens("今天气真好吗"))
    assert count(steps).errors == 3
    assert steps[-1] == Step("insert", "", "吗")
    assert "".join(s.reference for s in steps) == "今天天气很好"
    assert "".join(s.hypothesis for s in steps) == "今天气真好吗"


words = st.lists(st.sampled_from("abcde"), max_size=12)


@given(words.filter(bool), words)
def test_counts_equal_those_of_jiwer(said, heard):
    ours = count(align(said, heard))
    theirs = jiwer.process_words(" ".join(said), " ".join(heard))
    assert ours.errors == theirs.substitutions + theirs.deletions + theirs.insertions
    assert ours.length == len(said)
    assert ours.rate == pytest.approx(theirs.wer)


def test_a_missing_hypothesis_is_deleted_never_skipped():
    found = score({"a": "你好世界", "b": "hello there", "c": "好"}, {"a": "你好视界", "b": None, "z": "无"})
    assert found.counts == Counts(1, 3, 0, 7)
    assert (found.missing, found.wrong) == (2, 3)
    assert found.coverage == pytest.approx(1 / 3)
    assert found.rate == pytest.approx(4 / 7)
    assert found.sentence_rate == 1.0
    assert [u.missing for u in found.utterances] == [False, True, True]


def test_an_empty_hypothesis_is_not_missing_and_an_empty_reference_has_a_rate():
    assert not score_utterance("a", "", "").missing
    assert score_utterance("a", "", "多余").counts.rate == 2.0
    assert score({}, {}).coverage == 1.0


def test_averages_over_sets_give_each_set_the_same_weight():
    assert macro([0.1, 0.3]) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="at least one set"):
        macro([])
