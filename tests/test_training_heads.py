"""Recipes that build on a trained recogniser: CTC head after the fact, language identifier."""

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate", reason="training needs the extra `training`")

from tiny import write_aed, write_sentencepiece  # noqa: E402
from training_helpers import DATA, QUIET, TINY, corpus, options, sound  # noqa: E402

from vermilion.asr import AedRecognizer, DecodingOptions  # noqa: E402
from vermilion.checkpoints.reader import read_checkpoint, read_dictionary  # noqa: E402
from vermilion.errors import CheckpointError, OptionsError, TrainingError  # noqa: E402
from vermilion.lid import LanguageIdentifier  # noqa: E402
from vermilion.lid.labels import LANGUAGES  # noqa: E402
from vermilion.manifests import Utterance, read_manifest, write_manifest  # noqa: E402
from vermilion.training.aed import train_aed  # noqa: E402
from vermilion.training.ctc import train_ctc  # noqa: E402
from vermilion.training.lid import label_of, label_set, repeats_of, train_lid  # noqa: E402
from vermilion.training.log import read_metrics  # noqa: E402
from vermilion.training.options import CtcOptions, LidOptions, TokenOptions  # noqa: E402

RECORDINGS = [(sound(words, i), 16000) for i, words in enumerate([["一", "二"], ["NO", "YES"], ["四", "三", "三"]])]
LID = LidOptions(decoder_layers=1, dropout=0.05, label_smoothing=0.0)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus"), language=True)


@pytest.fixture(scope="module")
def recognizer(manifest, tmp_path_factory) -> Path:
    """A recogniser without a CTC head, in float16."""
    folder = tmp_path_factory.mktemp("aed")
    train_aed(
        manifest,
        options=replace(TINY, ctc_weight=0.0, half=True),
        training=options(folder, 30),
        data=DATA,
        tokens=TokenOptions(pieces=30),
        augment=QUIET,
    )
    return folder / "model"


def head(source: Path, manifest: Path, folder: Path, steps: int, **more):
    return train_ctc(
        source, manifest, training=options(folder, steps, learning_rate=0.01), data=DATA, augment=QUIET, **more
    )


def texts(folder: Path) -> list:
    found = AedRecognizer.from_pretrained(folder).recognize(RECORDINGS, DecodingOptions(nbest=3))
    return [[(h.text, h.confidence) for h in r.alternatives] for r in found]


def test_a_head_after_the_fact_leaves_everything_else_as_it_is(recognizer, manifest, tmp_path):
    head(recognizer, manifest, tmp_path, 40, dev=manifest)
    before, after = read_checkpoint(recognizer), read_checkpoint(tmp_path / "model")
    assert after.state.keys() - before.state.keys() == {"ctc.ctc_lo.weight", "ctc.ctc_lo.bias"}
    assert all(torch.equal(before.state[k], after.state[k]) for k in before.state)
    assert all(before.state[k].dtype == after.state[k].dtype for k in before.state)
    assert before.args == after.args
    assert texts(recognizer) == texts(tmp_path / "model")

    losses = [row["loss"] for row in read_metrics(tmp_path / "metrics.jsonl") if "loss" in row]
    assert losses[-1] < 0.6 * losses[0]
    assert AedRecognizer.from_pretrained(recognizer).ctc is None
    recognizer = AedRecognizer.from_pretrained(tmp_path / "model")
    words = recognizer.align(RECORDINGS[0], "一二")
    assert [w.text for w in words] == ["一", "二"]
    assert words[0].end <= words[1].start + 1e-6


def test_a_head_that_is_there_goes_on_or_begins_anew(manifest, tmp_path):
    source = write_sentencepiece(write_aed(tmp_path / "published"))
    kept = read_checkpoint(source).state
    for fresh in (False, True):
        folder = tmp_path / str(fresh)
        train_ctc(
            source,
            manifest,
            options=CtcOptions(fresh=fresh),
            training=options(folder, 1, learning_rate=1e-9),
            data=DATA,
        )
        state = read_checkpoint(folder / "model").state
        assert torch.allclose(state["ctc.ctc_lo.weight"], kept["ctc.ctc_lo.weight"], atol=1e-6) is not fresh
        assert all(torch.equal(state[k], kept[k]) for k in kept if not k.startswith("ctc."))


def test_a_head_in_parts_is_the_head_in_one(recognizer, manifest, tmp_path):
    head(recognizer, manifest, tmp_path / "a", 6)
    for steps in (2, 6):
        head(recognizer, manifest, tmp_path / "b", steps)
    one, other = (read_checkpoint(tmp_path / x / "model").state["ctc.ctc_lo.weight"] for x in "ab")
    assert torch.equal(one, other)


def identifier(manifest: Path, folder: Path, steps: int, chosen: LidOptions, **more):
    training = options(folder, steps, **more)
    return train_lid(manifest, options=chosen, training=training, data=DATA, augment=QUIET)


def test_the_identifier_learns_and_loads(recognizer, manifest, tmp_path):
    outcome = identifier(manifest, tmp_path, 60, replace(LID, encoder=recognizer, encoder_layers=1))
    assert outcome.finished
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "loss" in row]
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    folder = tmp_path / "model"
    labels = ["<blank>", "<unk>", "<pad>", "<sos>", "<eos>", "zh", "en", "mandarin", "yue"]
    assert read_dictionary(folder / "dict.txt") == labels
    found = read_checkpoint(folder)
    assert (found.args["lid_odim"], found.args["n_layers_enc"], found.args["n_layers_dec"]) == (9, 1, 1)
    assert {k.split(".")[0] for k in found.state} == {"encoder", "lid_decoder"}
    identifier_ = LanguageIdentifier.from_pretrained(folder)
    assert identifier_.languages == ["zh", "en"]
    results = identifier_.identify(RECORDINGS)
    assert [r.language for r in results] == ["zh", "en", "zh"]
    assert results[0].dialect in ("mandarin", "yue")
    assert results[1].dialect is None


def test_the_encoder_is_that_of_the_recogniser(recognizer, manifest, tmp_path):
    chosen = replace(LID, encoder=recognizer, freeze_encoder=True)
    identifier(manifest, tmp_path, 3, chosen)
    before, after = read_checkpoint(recognizer).state, read_checkpoint(tmp_path / "model").state
    encoder = [k for k in before if k.startswith("encoder.")]
    assert encoder
    assert all(torch.equal(before[k].float(), after[k]) for k in encoder)
    assert (tmp_path / "model" / "cmvn.ark").read_bytes() == (recognizer / "cmvn.ark").read_bytes()


def test_an_identifier_in_parts_is_the_identifier_in_one(recognizer, manifest, tmp_path):
    chosen = replace(LID, encoder=recognizer)
    identifier(manifest, tmp_path / "a", 6, chosen, ema_decay=0.9)
    for steps in (4, 6):
        identifier(manifest, tmp_path / "b", steps, chosen, ema_decay=0.9)
    one, other = (read_checkpoint(tmp_path / x / "model").state for x in "ab")
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_labels():
    def labels(language):
        return label_of(Utterance("u", "a.wav", language=language))

    assert labels("en") == ["en"]
    assert labels("zh yue") == ["zh", "yue"]
    assert labels("en-US") == ["en"]
    assert labels("Cantonese") == labels("yue") == ["zh", "yue"]
    for wrong in ("xx", "en yue", "zh xx", "zh yue wu", None):
        with pytest.raises(TrainingError, match=r"u has the language"):
            labels(wrong)
    found = label_set([["fr"], ["zh", "wu"], ["en"], ["zh", "mandarin"]])
    assert found[5:] == ["zh", "en", "fr", "mandarin", "wu"]
    assert list(LANGUAGES)[:2] == ["zh", "en"]


def test_rare_labels_are_repeated():
    counts = {"en": 8, "fr": 2, "it": 1}
    assert repeats_of(counts, 0.0, 10) == {"en": 1, "fr": 1, "it": 1}
    assert repeats_of(counts, 1.0, 5) == {"en": 1, "fr": 4, "it": 5}
    assert repeats_of(counts, 0.5, 10)["fr"] == 2


def test_what_cannot_be_trained(recognizer, manifest, tmp_path):
    with pytest.raises(CheckpointError, match="encoder layers, not 9"):
        identifier(manifest, tmp_path / "a", 1, replace(LID, encoder=recognizer, encoder_layers=9))
    with pytest.raises(OptionsError, match="--encoder"):
        LidOptions(freeze_encoder=True)
    other = tmp_path / "other.jsonl"
    write_manifest(other, [replace(read_manifest(manifest)[0], language="fr")])
    with pytest.raises(TrainingError, match="'fr' occurs in the held-out set only"):
        train_lid(manifest, dev=other, options=LID, training=options(tmp_path / "b", 1), data=DATA)


def test_the_commands(recognizer, manifest, tmp_path, capsys):
    from vermilion.cli import main

    common = ["--steps", "1", "--device", "cpu", "--threads", "1", "--json"]
    assert main(["train", "ctc", str(recognizer), str(manifest), "--output-dir", str(tmp_path / "c"), *common]) == 0
    chosen = ["--encoder", str(recognizer), "--decoder-layers", "1"]
    assert main(["train", "lid", str(manifest), "--output-dir", str(tmp_path / "l"), *chosen, *common]) == 0
    assert capsys.readouterr().out.count('"finished": true') == 2
    assert main(["train", "ctc", str(tmp_path), str(manifest), "--output-dir", str(tmp_path / "d"), *common]) == 3
