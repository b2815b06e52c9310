"""The restorer: what comes out is what went in, plus marks and capitals."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from punc_helpers import LABELS, marked, random_network, scripted, write_folder

from vermilion.punc import PunctuationOptions, PunctuationRestorer
from vermilion.punc.rules import punctuate
from vermilion.punc.units import find_units
from vermilion.transcript import Word

MARKS = set("，。？！,.?!")
ALPHABET = "你好世界abiI'.,!?，。？！ \t\n1９é\u0301\u200b\u200d😀👍🏽こ안㎡℃ＡßİΣ（）(\"“+#&-\x00\ufffd\ud83d\ude00"
WILD = st.text(st.one_of(st.sampled_from(ALPHABET), st.characters(exclude_categories=())), max_size=40)
NAUGHTY = scripted(lambda tokens, place: (sum(map(ord, tokens[place])) + place) % 5)


def inserted(text, out):
    """Places in `out` of the marks that were not in `text`; fails if anything else differs but letter case."""
    places, i = [], 0
    for place, char in enumerate(out):
        if i < len(text) and char in (text[i], text[i].title()):
            i += 1
        else:
            assert char in MARKS, (text, out)
            places.append(place)
    assert i == len(text), (text, out)
    return places


def words(*texts):
    return [Word(text, float(i), i + 0.5) for i, text in enumerate(texts)]


@settings(max_examples=400, deadline=None)
@given(WILD)
def test_only_marks_and_capitals_are_added(text):
    out = NAUGHTY.restore([text])[0]
    inserted(text, out)


@settings(max_examples=200, deadline=None)
@given(WILD)
def test_marks_are_never_doubled_or_put_inside_a_word(text):
    out = NAUGHTY.restore([text])[0]
    ends = {unit.end for unit in find_units(text)}
    for count, place in enumerate(inserted(text, out)):
        assert place - count in ends
        following = out[place + 1 :].lstrip()
        assert not (following and following[0] in MARKS)
        assert place == 0 or out[place - 1] not in MARKS


@settings(max_examples=200, deadline=None)
@given(WILD)
def test_restoring_twice_changes_nothing(text):
    steady = scripted(lambda tokens, place: sum(map(ord, tokens[place])) % 5)
    once = steady.restore([text])[0]
    assert steady.restore([once])[0] == once


@settings(max_examples=100, deadline=None)
@given(st.lists(WILD, max_size=8))
def test_words_come_back_as_given(texts):
    given_words = words(*texts)
    sentences = NAUGHTY.restore_words([given_words])[0]
    kept = [w for w in given_words if w.text.strip()]
    assert [w for s in sentences for w in s.words] == kept
    for sentence in sentences:
        assert (sentence.start, sentence.end) == (sentence.words[0].start, sentence.words[-1].end)
        inserted("".join("".join(w.text for w in sentence.words).split()), "".join(sentence.text.split()))


@pytest.mark.parametrize(
    "text",
    [
        "温度是25℃左右",
        "你好こんにちは世界",
        "ＡＢＣ全角",
        "面积100㎡价格",
        "xyz123",
        "你好queen你好",
        "欢迎안녕하세요光临",
        "naïve café",
        "Straße",
        "c++ and c# are languages",
        "a & b",
        "rock 'n' roll",
        "5 - 3 = 2",
        "v 2 . 0",
        "hello   world \n 你好",
    ],
)
@pytest.mark.parametrize("label", [0, 1, 2])
def test_defect_characters_and_blanks_are_kept(text, label):
    out = scripted(lambda tokens, place: label).restore([text])[0]
    assert inserted(text, out) or not label
    if not label:
        assert out.lower() == text.lower()


def test_defect_decimals_are_not_split():
    assert scripted(lambda tokens, place: 2).restore(["3.14是圆周率"]) == ["3.14。是。圆。周。率。"]
    assert scripted(lambda tokens, place: 1).restore(["pi 3.14 v2.0"]) == ["Pi, 3.14, v2.0,"]


def test_a_mark_comes_after_the_whole_word_by_its_last_piece():
    assert marked({"##b": "，", "c": "。"}).restore(["abc abd ab c"]) == ["Abc abd ab, c."]


def test_defect_existing_marks_are_kept_and_not_doubled():
    restorer = marked({"好": "，", "界": "！", "hello": "，", "world": "。"})
    assert restorer.restore(["你好，世界。"]) == ["你好，世界。"]
    assert restorer.restore(["你好世界。hello world"]) == ["你好，世界。Hello, world."]
    assert restorer.restore(["hello? world"]) == ["Hello? World."]
    assert restorer.restore(["你好 ，世界"]) == ["你好 ，世界！"]


def test_the_network_does_not_see_existing_marks():
    restorer = marked({})
    restorer.restore(["你好，世界。"])
    assert restorer._network.seen == [["你", "好", "世", "界"]]


def test_defect_words_that_the_tokeniser_alters():
    restorer = marked({"##e": "，", "hello": "。"})
    result = restorer.restore_words([words("café", "hello", "a b", "ａｂ", "😀😀", "c++", "and")])[0]
    assert [s.text for s in result] == ["Café,", "hello.", "A bａｂ😀😀 c++ and"]
    assert [w.text for s in result for w in s.words] == ["café", "hello", "a b", "ａｂ", "😀😀", "c++", "and"]


def test_defect_empty_words_are_skipped():
    result = marked({"好": "。"}).restore_words([words("", "你", "", "好", " ", "世")])[0]
    assert [(s.text, s.start, s.end) for s in result] == [("你好。", 1.0, 3.5), ("世", 5.0, 5.5)]


def test_sentences_of_words_read_like_the_whole_text():
    restorer = marked({"you": "？", "fine": "，", "ok": "，", "题": "。"})
    result = restorer.restore_words([words("how", "are", "you", "i'm", "fine", "he", "said", "ok", "没", "问", "题")])[
        0
    ]
    assert [s.text for s in result] == ["How are you?", "I'm fine,", "he said ok，", "没问题。"]


def test_words_with_their_own_marks_close_sentences():
    result = marked({}).restore_words([words("hello,", "world", ".", "how", "are", "you", "?", "!")])[0]
    assert [s.text for s in result] == ["Hello,", "world.", "How are you?!"]


def test_nothing_in_nothing_out():
    restorer = marked({})
    assert restorer.restore([]) == []
    assert restorer.restore_words([]) == []
    assert restorer.restore(["", "   "]) == ["", "   "]
    assert restorer.restore_words([[], words("", " ")]) == [[], []]


def test_defect_the_length_limit_concerns_one_item_and_forces_no_mark_at_its_end():
    restorer = marked({}, sentence_max_length=4)
    short, long = "你好世界", "今天天气怎么样"
    alone = [restorer.restore([text])[0] for text in (short, long)]
    assert restorer.restore([short, long]) == alone
    assert alone[0] == short
    places = inserted(long, alone[1])
    assert len(places) == 1
    assert places[0] <= 4
    assert alone[1][-1] not in MARKS
    assert [s.text for s in restorer.restore_words([words(*long)])[0]] == [
        alone[1][: places[0] + 1],
        alone[1][places[0] + 1 :],
    ]


def test_an_existing_mark_counts_for_the_limit():
    assert marked({}, sentence_max_length=4).restore(["今天天气，怎么样"]) == ["今天天气，怎么样"]


def test_batch_mates_and_batch_size_change_nothing(tmp_path):
    folder = write_folder(tmp_path / "punc")
    texts = ["你好世界", "hello world how are you", "", "今天天气怎么样" * 12, "ok没问题", "价格是99元 and 3.14"]
    together = PunctuationRestorer.from_pretrained(folder).restore(texts)
    for tokens in (1, 30):
        restorer = PunctuationRestorer.from_pretrained(folder, options=PunctuationOptions(batch_tokens=tokens))
        assert restorer.restore(texts) == together
        assert [restorer.restore([text])[0] for text in texts] == together


def test_long_texts_have_context_on_both_sides_of_every_seam():
    positions = 512
    restorer = scripted(lambda tokens, place: 2 if 20 <= place < len(tokens) - 20 else 1)
    assert restorer._network.config.max_positions == positions
    out = restorer.restore(["你" * 1500])[0]
    assert out[:40] == "你，" * 20
    assert out[40:-40] == "你。" * 1460
    assert out[-40:] == "你，" * 20


def test_plain_texts_match_the_golden_ones(golden):
    """Where the published text loses nothing ours is equal; the rest differs by blanks, case and form of a mark."""
    restorer = PunctuationRestorer.from_pretrained(golden / "checkpoints/FireRedPunc")
    rows = json.loads((golden / "golden/punc/singles.json").read_text(encoding="utf8"))["rows"]
    ours = restorer.restore([row["text"] for row in rows])
    form = str.maketrans("，。？！", ",.?!")
    same = 0
    for got, row in zip(ours, rows, strict=True):
        want = row["punc_text"]
        same += got == want
        assert "".join(got.translate(form).lower().split()) == "".join(want.translate(form).lower().split())
    assert same >= len(rows) * 3 / 4


def test_word_sentences_match_the_golden_ones(golden):
    restorer = PunctuationRestorer.from_pretrained(golden / "checkpoints/FireRedPunc")
    rows = json.loads((golden / "golden/punc_timestamp/max-1.json").read_text(encoding="utf8"))["rows"]
    rows = [row for row in rows if len(row["words"]) < 400]  # longer ones: windows overlap here
    form = str.maketrans("，。？！", ",.?!")
    for got, row in zip(restorer.restore_words([[Word(*w) for w in row["words"]] for row in rows]), rows, strict=True):
        assert [[s.start, s.end] for s in got] == [s[1:] for s in row["sentences"]]
        for sentence, (text, _, _) in zip(got, row["sentences"], strict=True):
            assert sentence.text.translate(form).lower() == text.translate(form).lower()


def test_helpers_agree_with_the_published_labels():
    assert LABELS[1:] == list("，。？！")
    assert punctuate("hello", find_units("hello"), ["。"]) == "Hello."
    assert random_network().config.num_labels == len(LABELS)
