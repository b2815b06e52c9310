"""The punctuation recipe: labels out of text, windows, errors; it learns, resumes exactly, publishes."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate", reason="training needs the extra `training`")

from punc_helpers import write_folder  # noqa: E402
from training_helpers import options  # noqa: E402

from vermilion.checkpoints.reader import read_checkpoint, read_dictionary  # noqa: E402
from vermilion.errors import CheckpointError, OptionsError, TrainingError  # noqa: E402
from vermilion.punc import PunctuationRestorer  # noqa: E402
from vermilion.punc.tokens import PieceTokenizer  # noqa: E402
from vermilion.training.log import read_metrics  # noqa: E402
from vermilion.training.punc import IGNORED, Windows, parted, scores, train_punctuation  # noqa: E402
from vermilion.training.punc_folder import build_vocabulary  # noqa: E402
from vermilion.training.punc_options import PunctuatorOptions  # noqa: E402
from vermilion.training.punc_text import (  # noqa: E402
    LABELS,
    Marked,
    NoiseOptions,
    documents,
    joined,
    marked_words,
    read_texts,
    with_errors,
)

TINY = PunctuatorOptions(
    hidden=32, layers=1, heads=2, feed_forward=64, positions=64, pieces=20, min_count=1, batch_words=160,
    longest_window=40, validation_windows=0,
)  # fmt: skip
SENTENCES = ("你好吗？", "我很好，谢谢。", "太好了！", "how are you? ", "i am fine, thanks. ", "stop now! ")


def written(text: str) -> str:
    """Words with their marks."""
    return " ".join(m.word + LABELS[m.label].strip() for m in marked_words(text))


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    rng = np.random.default_rng(0)
    place = tmp_path_factory.mktemp("text") / "text.txt"
    place.write_text("\n".join("".join(rng.choice(SENTENCES, 5)).strip() for _ in range(60)) + "\n", encoding="utf8")
    return place


def run(text: Path, folder: Path, steps: int, recipe: PunctuatorOptions = TINY, **more):
    return train_punctuation([text], options=recipe, training=options(folder, steps, **more))


def weights(folder: Path) -> dict:
    return read_checkpoint(folder / "model").state


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("他说：“你好！我叫Tom。”然后走了……真的吗？！", "他 说， 你 好！ 我 叫 tom。 然 后 走 了。 真 的 吗？"),
        ('I don\'t know - "really?" he asked; then left.', "i don't know， really？ he asked， then left。"),
        ("at 10:30 Dr. Smith paid 3.14, i.e. 50% (see below).", "at 10:30 dr smith paid 3.14， i.e 50% see below。"),
        ("《红楼梦》、《西游记》都好看——你觉得呢？", "红 楼 梦， 西 游 记 都 好 看， 你 觉 得 呢？"),
        ("Well-known stuff... OK?!", "well known stuff。 ok？"),
        ("“好。”他说", "好。 他 说"),
        ("用ＡＢＣ和c++；example.com好用", "用 abc 和 c++， example.com 好 用"),
        ("the dogs’ tails, it’s ‘fine’!", "the dogs tails， it's fine！"),
        ("，。！", ""),
    ],
)
def test_labels_come_from_the_marks(given, expected):
    assert written(given) == expected


def test_running_text_ends_where_marks_fail():
    lines = ["你好。", "今天", "好，明天", "", "再见！"]
    found = [[m.word for m in document] for document in documents(lines)]
    assert found == [["你", "好"], ["好"], ["再", "见"]]


def test_text_is_read_from_json_lines_too(tmp_path):
    place = tmp_path / "a.jsonl"
    place.write_text('{"text": "你好。"}\n\n{"text": "ok!"}\n', encoding="utf8")
    assert list(read_texts(place)) == ["你好。", "", "ok!"]
    for wrong in ("{", "[]", '{"txt": "a"}'):
        place.write_text(wrong, encoding="utf8")
        with pytest.raises(TrainingError, match="line 1"):
            list(read_texts(place))
    with pytest.raises(TrainingError, match="cannot read"):
        list(read_texts(tmp_path / "none.txt"))


def test_words_are_joined_as_a_recogniser_writes_them():
    text, ends = joined(marked_words("我有 three apples, 好吗？"))
    assert text == "我有three apples好吗"
    assert [text[a:b].strip() for a, b in zip([0, *ends], ends, strict=False)] == [
        "我",
        "有",
        "three",
        "apples",
        "好",
        "吗",
    ]


def test_errors_keep_the_marks():
    words = [m for _ in range(300) for m in marked_words("你好吗？我很好，谢谢。how are you? i am fine.")]
    noise = NoiseOptions(substitution=0.1, deletion=0.1, insertion=0.1, filler=0.05)
    noisy = with_errors(words, [m.word for m in words], noise, np.random.default_rng(0))
    assert noisy == with_errors(words, [m.word for m in words], noise, np.random.default_rng(0))
    assert with_errors(words, ["x"], NoiseOptions(0, 0, 0, 0, 0), np.random.default_rng(0)) == words
    known = {m.word for m in words}
    assert {"嗯", "um"} <= {m.word for m in noisy} - known
    before, after = (Counter(m.label for m in x) for x in (words, noisy))
    assert all(0.9 * before[label] <= after[label] <= before[label] for label in range(1, len(LABELS)))
    assert with_errors([Marked("a")], ["b"], NoiseOptions(deletion=1), np.random.default_rng(0)) == [Marked("a")]


def test_the_vocabulary_covers_the_text():
    vocabulary = build_vocabulary(["你好 hello help", "hello held 世"], replace(TINY, pieces=3))
    assert vocabulary[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert {"你", "h", "##l", "hello"} <= set(vocabulary)
    assert "##你" not in vocabulary
    assert len(set(vocabulary)) == len(vocabulary)
    pieces = PieceTokenizer(vocabulary, vocabulary)(["你好hello helped"])[0]
    assert all(piece.text != "[UNK]" for piece in pieces)
    rare = build_vocabulary(["你好你好世"], replace(TINY, min_count=2))
    assert "好" in rare
    assert "世" not in rare


def windows(**more) -> Windows:
    texts = [
        marked_words("你好吗？我很好，谢谢你。太好了！" * 40),
        marked_words("how are you? i am fine, thanks. " * 40),
    ]
    vocabulary = build_vocabulary([joined(t)[0] for t in texts], replace(TINY, pieces=0))
    recipe = replace(TINY, **more)
    return Windows(texts, PieceTokenizer(vocabulary, vocabulary), 2, recipe, NoiseOptions(share=0), 0)


def test_a_label_stands_at_the_last_piece_of_its_word():
    batch = windows().rows([marked_words("我好，thanks. you")])
    assert batch.ids.shape == (1, 1 + 2 + 6 + 3)  # no pieces: letter by letter
    assert batch.ids[0, 0] == 2
    assert batch.labels.tolist() == [[0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0]]
    assert batch.ends[0].nonzero().flatten().tolist() == [0, 1, 7, 10]
    padded = windows().rows([marked_words("我好。"), marked_words("我")])
    assert padded.labels.tolist() == [[0, 2], [0, IGNORED]]
    assert padded.lengths.tolist() == [3, 2]
    long = windows().rows([marked_words("好" * 100)])
    assert long.ids.shape == (1, TINY.positions)


def test_windows_end_where_they_should():
    for share in (0.0, 1.0):
        drawn = windows(sentence_end=share, sentence_start=1.0)
        rng = np.random.default_rng(1)
        found = [drawn.draw(20, rng) for _ in range(60)]
        at_end = np.mean([window[-1].label in (2, 3, 4) for window in found])
        assert at_end == 1 if share else at_end < 0.5
        assert {window[0].word for window in found} <= {"你", "我", "太", "how", "i"}
        assert max(map(len, found)) <= 20
    one, same = windows().batch(0, 3, 5), windows().batch(0, 3, 5)
    assert torch.equal(one.ids, same.ids)
    assert not torch.equal(one.ids[:1, :5], windows().batch(0, 3, 6).ids[:1, :5]) or len(one.ids) > 1


def test_nothing_is_in_both_parts():
    text = [Marked(str(i), 2 if i % 7 == 6 else 0) for i in range(70000)]
    known, held_out = ([m.word for part in parts for m in part] for parts in parted([text]))
    assert not set(known) & set(held_out)
    assert len(known) + len(held_out) == 70000
    assert 0.03 < len(held_out) / 70000 < 0.07
    assert all(parted([marked_words("你好。再见。")]))
    with pytest.raises(TrainingError, match="too little"):
        parted([marked_words("你好。")])


def test_scores_count_each_mark():
    class Says(torch.nn.Module):
        """Answers comma everywhere but at the first word."""

        def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            out = torch.zeros(len(ids), ids.shape[1] - 1, len(LABELS))
            out[:, 0, 0] = 9
            out[:, 1:, 1] = 9
            return out

    found = scores(Says(), [windows().rows([marked_words("你，好，吗？我")])])
    assert found["comma_precision"] == pytest.approx(1 / 3)
    assert found["comma_recall"] == 0.5
    assert found["question_f1"] == 0
    assert found["f1"] == pytest.approx(2 * 1 / (3 + 3))


def test_it_learns_and_the_restorer_loads_it(text, tmp_path):
    recipe = replace(TINY, validation_windows=20, half=True)
    outcome = run(text, tmp_path, 150, recipe, learning_rate=1e-2)
    losses = [row["loss"] for row in read_metrics(tmp_path / "metrics.jsonl") if "loss" in row]
    assert losses[-1] < 0.35 * losses[0]
    assert outcome.validation["valid_question_f1"] > 0.6
    model = tmp_path / "model"
    assert [label.strip() for label in read_dictionary(model / "out_dict")] == ["", "，", "。", "？", "！"]
    assert weights(tmp_path)["classifier.weight"].shape == (5, 32)
    assert (model / "chinese-lert-base" / "model.safetensors").exists()
    restored = PunctuationRestorer.from_pretrained(model).restore(
        ["你好吗我很好谢谢太好了", "how are you i am fine thanks"]
    )
    assert "你好吗？" in restored[0]
    assert "How are you?" in restored[1]


def test_a_training_in_parts_is_the_training_in_one(text, tmp_path):
    recipe = replace(TINY, dropout=0.3)
    run(text, tmp_path / "a", 5, recipe)
    for steps in (2, 3, 5):
        run(text, tmp_path / "b", steps, recipe)
    one, other = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_a_published_model_is_the_start(text, tmp_path):
    source = write_folder(tmp_path / "published")
    recipe = replace(TINY, init=source, longest_window=20, shortest_window=4, dropout=0.0)
    run(text, tmp_path / "tuned", 1, recipe, learning_rate=1e-9)
    before, after = read_checkpoint(source).state, weights(tmp_path / "tuned")
    assert all(torch.allclose(before[k], after[k], atol=1e-6) for k in after)
    same = [
        PunctuationRestorer.from_pretrained(f).restore(["你好世界"]) for f in (source, tmp_path / "tuned" / "model")
    ]
    assert same[0] == same[1]


def test_a_bert_of_hugging_face_is_the_start(text, tmp_path):
    transformers = pytest.importorskip("transformers")
    source = write_folder(tmp_path / "published") / "chinese-lert-base"
    config = transformers.BertConfig(**json.loads((source / "config.json").read_text(encoding="utf8")))
    bert = transformers.BertModel(config, add_pooling_layer=True)
    bert.save_pretrained(source)
    recipe = replace(TINY, init=source, longest_window=20, dropout=0.0)
    run(text, tmp_path / "tuned", 1, recipe, learning_rate=1e-9)
    after = weights(tmp_path / "tuned")
    key = "embeddings.word_embeddings.weight"
    assert torch.allclose(after[f"bert.{key}"], bert.state_dict()[key], atol=1e-6)
    again = transformers.BertModel.from_pretrained(tmp_path / "tuned" / "model" / "chinese-lert-base")
    assert torch.allclose(again.state_dict()[key], bert.state_dict()[key], atol=1e-3)
    PunctuationRestorer.from_pretrained(tmp_path / "tuned" / "model").restore(["你好"])


def test_what_cannot_be_trained_is_said(text, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="lacks"):
        run(text, tmp_path / "a", 1, replace(TINY, init=tmp_path / "empty"))
    bare = tmp_path / "bare.txt"
    bare.write_text("你好\n", encoding="utf8")
    with pytest.raises(TrainingError, match=r"no punctuated text|too little"):
        run(bare, tmp_path / "b", 1)
    for wrong in ({"heads": 3}, {"longest_window": 600}, {"dropout": 2}, {"layers": 0}):
        with pytest.raises(OptionsError):
            PunctuatorOptions(**wrong)
    with pytest.raises(OptionsError):
        NoiseOptions(deletion=1.5)


def test_lines_that_are_no_text_are_left_out_and_named(text, tmp_path):
    rows = [json.dumps({"text": line}, ensure_ascii=False) for line in text.read_text(encoding="utf8").splitlines()]
    rows[4], rows[7] = "{", json.dumps({"txt": "no text"})
    place = tmp_path / "text.jsonl"
    place.write_bytes("\n".join(rows).encode() + b"\n\xff\xfe\n")
    outcome = run(place, tmp_path / "a", 1)
    assert outcome.skipped == ("text.jsonl, line 5", "text.jsonl, line 8", "text.jsonl, line 61")
    place.write_text("{\n" * 20 + rows[0])
    with pytest.raises(TrainingError, match="of the first 21 recordings 20 cannot be used"):
        run(place, tmp_path / "b", 1)
