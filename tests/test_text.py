"""How pieces of text are joined and cut into sentences."""

from vermilion.text import join_texts, sentences_of
from vermilion.transcript import Word


def test_blanks_stand_between_latin_and_korean_but_not_chinese():
    assert join_texts(["Hello speech.", "Hello speech."]) == "Hello speech. Hello speech."
    assert join_texts(["你好，", "世界！", "OK.", "好"]) == "你好，世界！OK.好"
    assert join_texts(["안녕", "하세요"]) == "안녕 하세요"
    assert join_texts(["", "a", ""]) == "a"


def test_words_with_marks_make_sentences():
    words = [Word(t, float(i), i + 1.0) for i, t in enumerate(["Hi", "there.", '"Go!"', "now"])]
    assert [(s.text, s.start, s.end) for s in sentences_of(words)] == [
        ("Hi there.", 0.0, 2.0),
        ('"Go!"', 2.0, 3.0),
        ("now", 3.0, 4.0),
    ]
