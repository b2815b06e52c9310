"""Text ↔ tokens, and the spelling of written texts for alignment; the SentencePiece model is trained here."""

import io

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from vermilion.asr.tokenizer import SENTENCEPIECE_FILE, Tokenizer
from vermilion.asr.words import text_of
from vermilion.errors import CheckpointError

LINES = ["HELLO SPEECH WORLD", "DON'T STOP THE BLUETOOTH MUSIC", "PLEASE TURN ON THE LIGHT", "A WELL KNOWN SONG"] * 20
HAN = "你好世界打开设置"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=model, vocab_size=60, model_type="bpe", minloglevel=2
    )
    folder = tmp_path_factory.mktemp("vocabulary")
    (folder / SENTENCEPIECE_FILE).write_bytes(model.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    english = [pieces.id_to_piece(i) for i in range(3, pieces.get_piece_size())]
    tokens = ["<blank>", "<unk>", "<pad>", "<sos>", "<eos>", "<sil>", *english, *HAN]
    (folder / "dict.txt").write_text("".join(f"{t} {i}\n" for i, t in enumerate(tokens)), encoding="utf8")
    return Tokenizer.from_folder(folder)


def test_encoding(tokenizer):
    tokens, ids = tokenizer.encode("打开bluetooth设置！")
    assert tokens[:2] == ["打", "开"]
    assert tokens[-2:] == ["设", "置"]
    assert "".join(tokens[2:-2]) == "▁BLUETOOTH"
    assert [tokenizer.vocabulary[i] for i in ids] == tokens
    assert tokenizer.decode(ids) == "打开 BLUETOOTH设置"
    assert tokenizer.encode("，。？！ ,.?!") == ([], [])
    assert tokenizer.encode("你q")[1] != tokenizer.encode("你")[1]  # an unknown letter is <unk>, not nothing


LETTERS = "".join(sorted(set("".join(LINES).replace(" ", "")))).lower()


@given(st.text(alphabet=HAN + LETTERS + " ,。Ж℃9", max_size=30))
def test_no_character_is_dropped(tokenizer, text):
    tokens, ids = tokenizer.encode(text)
    assert len(tokens) == len(ids)
    kept = "".join(tokens).replace("▁", "")
    # SentencePiece writes compatibility characters out (℃ → °C) but drops none
    assert kept == "".join(text.upper().replace(",", " ").replace("。", " ").split()).replace("℃", "°C")


@given(st.lists(st.sampled_from(["hello", "don't", "light", *HAN]), min_size=1, max_size=8))
def test_text_survives_the_round_trip(tokenizer, words):
    text = " ".join(words)
    _, ids = tokenizer.encode(text)
    assert tokenizer.unknown not in ids
    assert text_of(tokenizer.vocabulary[i] for i in ids).replace(" ", "") == text.replace(" ", "")


def test_spelling_keeps_marks_with_their_words(tokenizer):
    written = "... He said: “Hello (world)” - 你好，《世界》。 50% don’t"
    words = tokenizer.spell(written)
    assert [w.text for w in words] == [
        "...He", "said:", "“Hello", "(world)”-", "你", "好，", "《世", "界》。", "50%", "don’t",
    ]  # fmt: skip
    known = {w.text: [tokenizer.vocabulary[i] for i in w.ids] for w in words}
    assert "".join(known["(world)”-"]) == "▁WORLD"
    assert "".join(known["don’t"]) == "▁DON'T"
    assert known["界》。"] == ["界"]
    assert tokenizer.spell("—— ,，!") == []
    assert tokenizer.spell("") == []


def test_a_hyphen_separates_and_unknown_stretches_count_once(tokenizer):
    (word,) = tokenizer.spell("Well-known")
    assert "".join(tokenizer.vocabulary[i] for i in word.ids) == "▁WELL▁KNOWN"
    (number,) = tokenizer.spell("123456")
    assert number.ids.count(tokenizer.unknown) == 1


@given(st.text(max_size=40))
def test_spelling_loses_nothing_but_white_space(tokenizer, text):
    words = tokenizer.spell(text)
    assert all(w.ids for w in words)
    if words:
        assert "".join(w.text for w in words) == "".join(text.split())


def test_the_file_is_needed_only_for_letters(tmp_path):
    bare = Tokenizer(["<blank>", "<unk>", *HAN])
    assert bare.encode("你好，世界")[1] == [2, 3, 4, 5]
    assert [w.text for w in bare.spell("“你好” …")] == ["“你", "好”…"]
    with pytest.raises(CheckpointError, match="is missing"):
        bare.encode("hello")
    damaged = tmp_path / SENTENCEPIECE_FILE
    damaged.write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match="not a SentencePiece model"):
        Tokenizer(["<blank>"], damaged).encode("hello")
