"""Where text without spaces may be cut: words, lines, cues, live captions; Thai, Lao, Burmese, Khmer and the others."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vermilion.asr.whisper import _joined, _parted, _words
from vermilion.formats import SubtitleOptions
from vermilion.formats.subtitles import cues
from vermilion.formats.width import display_width, wrap
from vermilion.live.agreement import Agreement
from vermilion.scripts import may_cut, words_of
from vermilion.text import join_texts, join_words, sentences_of
from vermilion.transcript import Sentence, Transcript, Word

THAI = "สวัสดีครับวันนี้เราจะมาพูดคุยกันเรื่องการพัฒนาซอฟต์แวร์และการทดสอบ"
LAO = "ສະບາຍດີຂ້ອຍຊື່ວ່າສົມຊາຍພາສາລາວປະເທດໄທ"
BURMESE = "မြန်မာနိုင်ငံတွင်ကောင်းမွန်သောဒုက္ခသတ္တဝါအင်္ဂါ"
KHMER = "ខ្ញុំនិយាយភាសាខ្មែរកម្ពុជាសួស្តី"
TEXTS = {"th": THAI, "lo": LAO, "my": BURMESE, "km": KHMER}
LEADING = "เแโใไເແໂໃໄ"
FOLLOWING = "ะาำๅๆฯະາຳຽໆ"


def badly_cut(left, right):
    """What a reader of these scripts would not accept."""
    if not left or not right:
        return False
    sign = unicodedata.category(right[0]) in ("Mn", "Mc", "Me") or right[0] in FOLLOWING
    return sign or left[-1] in LEADING or left[-1] in "\u1039\u17d2"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("สวัสดีครับวันนี้", "สวัส|ดี|ครับ|วัน|นี้"),
        ("เรื่องการพัฒนาซอฟต์แวร์", "เรื่อง|การ|พัฒ|นา|ซอฟต์|แวร์"),
        ("จันทร์ ๒๕๖๘ ต่างๆ", "จันทร์| ๒๕๖๘| ต่างๆ"),
        ("ประเทศไทย", "ประ|เทศ|ไทย"),
        ("ສະບາຍດີຂ້ອຍ", "ສະ|ບາຍ|ດີ|ຂ້ອຍ"),
        ("မြန်မာနိုင်ငံ", "မြန်|မာ|နိုင်|ငံ"),
        ("အင်္ဂါ ဒုက္ခ", "အင်္ဂါ| ဒုက္ခ"),
        ("ភាសាខ្មែរ", "ភា|សា|ខ្មែរ"),
        ("བོད་སྐད་", "བོད་|སྐད་"),
        ("ใช้Pythonได้", "ใช้|Python|ได้"),
        ("今天GPT很好。", "今|天|GPT|很|好。"),
        ("it's 3.5 per cent.", "it's| 3.5| per| cent."),
        ("한국어 단어", "한국어| 단어"),
        ("", ""),
    ],
)
def test_words(text, expected):
    assert "|".join(words_of(text)) == expected


@settings(max_examples=60, deadline=None)
@given(
    st.text(st.sampled_from(THAI + LAO + BURMESE + KHMER + LEADING + FOLLOWING + "a1 .世가\u200b\u200d😀"), max_size=40)
)
def test_no_cut_within_a_sign_and_nothing_lost(text):
    pieces = words_of(text)
    assert "".join(pieces) == text
    assert all(pieces)
    assert not any(badly_cut(a, b) for a, b in zip(pieces, pieces[1:], strict=False) if not a[-1].isspace())
    assert all(may_cut(text, i) in (True, False) for i in range(1, len(text)))


@pytest.mark.parametrize("code", TEXTS)
def test_pieces_of_whisper_become_words_that_a_reader_knows(code):
    """faster-whisper hands a letter or two over at a time, without spaces; for Khmer all between two spaces."""
    text = TEXTS[code]

    class Piece:
        def __init__(self, i, word, length=0.1):
            self.word, self.start, self.end, self.probability = word, i * 0.1, i * 0.1 + length, 0.9

    class Segment:
        words = [Piece(i, c) for i, c in enumerate(text)]

    class Whole:
        words = [Piece(0, " " + text, len(text) * 0.1)]

    for segment in (Segment, Whole):
        words = _words(segment, code, 0.0, 30.0)
        assert [w.text for w in words] == words_of(text)
        assert len(words) > len(text) / 6
        assert all(a.start < a.end <= b.start + 1e-9 for a, b in zip(words, words[1:], strict=False))
        (sentence,) = sentences_of(words, text)
        assert sentence.text == join_words(w.text for w in words) == text


def test_pieces_before_and_after_spaces():
    pieces = [Word(p, float(i), i + 1.0, 0.5) for i, p in enumerate(["วั", "น", "นี้ ", "ดี", " มา", "ก"])]
    assert [w.text.strip() for w in _joined(pieces)] == ["วัน", "นี้", "ดี", "มาก"]
    assert [w.text for w in _parted(Word(" วันนี้", 0.0, 1.0, 0.5))] == [" วัน", "นี้"]


@pytest.mark.parametrize("text", TEXTS.values())
@pytest.mark.parametrize("width", [8, 13, 21, 42])
def test_lines_end_where_a_reader_would_end_them(text, width):
    lines = wrap(text * 2, width)
    assert "".join(lines) == text * 2
    assert all(display_width(line) <= width for line in lines)
    assert not any(badly_cut(a, b) for a, b in zip(lines, lines[1:], strict=False))


@pytest.mark.parametrize("code", TEXTS)
def test_cues_end_there_too_and_are_timed_by_their_words(code):
    parts = words_of(TEXTS[code] * 3)
    words = [Word(p, i * 0.5, i * 0.5 + 0.5) for i, p in enumerate(parts)]
    sentence = Sentence(join_words(parts), 0.0, words[-1].end, words)
    found = cues(Transcript("x", words[-1].end, sentence.text, [sentence]), SubtitleOptions(max_line_width=20))
    texts = ["".join(cue.lines) for cue in found]
    assert "".join(texts) == TEXTS[code] * 3
    assert len(texts) > 1
    assert not any(badly_cut(a, b) for a, b in zip(texts, texts[1:], strict=False))
    ends = {round(w.end * 1000) for w in words}
    assert all(any(abs(c.start_ms - end) <= 500 for end in ends) for c in found[1:])


def test_words_are_joined_without_spaces_and_sentences_with():
    assert join_words(["สวัส", "ดี", "Python", "ได้", "世", "界"]) == "สวัสดี Python ได้世界"
    assert join_texts(["สวัสดี", "ครับ"]) == "สวัสดี ครับ"


def test_sentences_keep_the_spaces_of_their_text():
    words = [Word(t, float(i), i + 1.0) for i, t in enumerate(["สวัส", "ดี", "วัน", "นี้"])]
    assert [s.text for s in sentences_of(words, "สวัสดี วันนี้")] == ["สวัสดี วันนี้"]
    english = [Word(t, float(i), i + 1.0) for i, t in enumerate(["Hi.", "You", "there"])]
    assert [s.text for s in sentences_of(english, "Hi. You there")] == ["Hi.", "You there"]
    assert [s.text for s in sentences_of(english, "another text")] == ["Hi.", "You there"]


def test_live_captions_show_syllables_as_they_settle():
    shown = Agreement()
    shown.add("สวัสดีครั")
    assert shown.add("สวัสดีครับวัน") == ("สวัสดี", "ครับวัน")
