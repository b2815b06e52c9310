"""The builder of benchmarks/real in its pure parts: labels by energy, mixing, texts, packages."""

import hashlib
import importlib
import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent.parent / "benchmarks" / "real"
if not HERE.is_dir():
    pytest.skip("benchmarks/ is not part of this copy", allow_module_level=True)
RATE = 16000


@pytest.fixture(scope="module", autouse=True)
def on_path():
    """The folder's modules import each other by their bare names."""
    sys.path.insert(0, str(HERE))
    yield
    sys.path.remove(str(HERE))
    for name in ("packages", "texts", "timeline"):
        sys.modules.pop(name, None)


def module(name):
    return importlib.import_module(name)


def tone(seconds, level=0.3):
    return (level * np.sin(2 * np.pi * 220 * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def silence(seconds):
    return (1e-5 * np.random.default_rng(1).standard_normal(round(seconds * RATE))).astype(np.float32)


def test_a_clip_is_labelled_where_it_sounds():
    clip = np.concatenate([silence(0.5), tone(1), silence(0.1), tone(1), silence(0.5), tone(0.4), silence(0.5)])
    (a, b), (c, d) = module("timeline").active(clip)  # the pause of 0.1 s belongs to the speech, that of 0.5 s does not
    assert (a, b, c, d) == pytest.approx((0.48, 2.62, 3.08, 3.52), abs=0.011)


def test_what_is_far_below_the_speech_and_short_bursts_are_not_labelled():
    timeline = module("timeline")
    assert timeline.active(np.concatenate([tone(1), tone(1, 0.3 * 10 ** (-35 / 20))])) == [(0.0, 1.02)]
    assert len(timeline.active(np.concatenate([tone(1), silence(1), tone(0.03), silence(1)]))) == 1
    assert timeline.active(np.zeros(50, np.float32)) == []


def test_a_clip_without_pauses_is_speech_from_end_to_end():
    assert module("timeline").active(tone(1)) == [(0.0, 1.0)]


def test_clips_stand_on_the_timeline_where_the_labels_say():
    timeline = module("timeline")
    clips = [("speech", "a", np.concatenate([silence(0.3), tone(1), silence(0.3)])), ("music", "b", tone(2))] * 4
    take = timeline.sequence(clips, 8.0, (0.5, 1.0), np.random.default_rng(0))
    assert take.seconds == 8.0
    assert take.sources[:2] == ["a", "b"]
    assert set(take.spans) == {"speech", "music"}
    outside = np.ones(len(take.samples), bool)
    for spans in take.spans.values():
        for start, end in spans:
            outside[round(start * RATE) : round(end * RATE)] = False
    assert np.abs(take.samples[outside]).max() < 1e-3
    level = 10 * np.log10(timeline.power(take.samples, take.spans["music"]))
    assert level == pytest.approx(timeline.LEVEL, abs=0.1)


def test_a_background_lies_as_far_below_the_speech_as_it_should():
    timeline = module("timeline")
    rng = np.random.default_rng(0)
    take = timeline.sequence([("speech", "a", tone(3))], 6.0, (0.5, 0.5), rng)
    noise = timeline.noise("pink", len(take.samples), rng)
    mixed = timeline.under(take, noise, 10.0)
    speech = timeline.power(take.samples, take.spans["speech"])
    added = timeline.power(mixed.samples - take.samples, [(0.0, 6.0)])
    assert 10 * np.log10(speech / added) == pytest.approx(10, abs=0.01)
    assert mixed.spans == take.spans
    assert timeline.under(take, tone(6), 10.0, "music").spans["music"] == [(0.0, 6.0)]


@pytest.mark.parametrize(("kind", "per_octave"), [("white", 0), ("pink", -3), ("brown", -6)])
def test_the_colours_of_noise(kind, per_octave):
    samples = module("timeline").noise(kind, 1 << 17, np.random.default_rng(0))
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    frequency = np.fft.rfftfreq(len(samples), 1 / RATE)
    low, high = (spectrum[(frequency > f) & (frequency < 2 * f)].mean() for f in (500, 1000))
    assert 10 * np.log10(high / low) == pytest.approx(per_octave, abs=0.5)
    assert np.mean(samples**2) == pytest.approx(1, abs=0.01)


def test_nothing_clips_and_no_recording_is_digitally_silent():
    timeline = module("timeline")
    loud = timeline.finished(timeline.Take(tone(1, 3.0)), np.random.default_rng(0))
    assert np.abs(loud.samples).max() == pytest.approx(0.98, abs=1e-3)
    empty = timeline.finished(timeline.Take(np.zeros(RATE, np.float32)), np.random.default_rng(0))
    assert 10 * np.log10(np.mean(empty.samples**2)) == pytest.approx(timeline.ROOM, abs=0.5)


def test_a_loop_fills_its_length_without_gaps():
    timeline = module("timeline")
    loop = timeline.looped([tone(0.3), tone(0.5, 0.01)], RATE * 2, np.random.default_rng(0))
    assert len(loop) == 2 * RATE
    assert timeline.levels(loop).max() - np.percentile(timeline.levels(loop), 20) < 6


def test_prompts_of_the_telephone():
    text = (
        "\ufeff; comment\nadded: Added.\nbeep: [a tone]\nsilence/1: (one second)\ndigits/0: cero\ndigits/0: diez\nx:\n"
    )
    assert module("texts").asterisk(text) == {"added": "Added."}


def test_dialogues_of_the_game():
    text = 'dialogId("a-m-1", "font", "What?")\ndialogStr("Co \\"to\\" je?\\n")\n\n'
    text += 'dialogId("b", "f", "No.")\ndialogStr("Ne.")'
    assert module("texts").fillets(text) == {"a-m-1": 'Co "to" je?', "b": "Ne."}


def test_texts_that_can_be_compared():
    usable = module("texts").usable
    assert usable("Please enter your password.")
    assert not any(map(usable, ("Hello.", "Press 1 now.", "The time will be exactly...", "a # b")))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("行。我们去德尔文， 听听有啥说法。", "行。我们去德尔文，听听有啥说法。"),
        ("注意：这里有一个冒号在中间。", None),
        ("太短了。", None),
        ("没有句末标点的一个长句子", None),
        ("连续的标点在这句话的末尾。。", None),
    ],
)
def test_chinese_sentences_have_no_marks_but_the_scored_ones(text, kept):
    assert module("texts").chinese_sentence(text) == kept


def test_english_sentences_likewise():
    sentence = module("texts").english_sentence
    assert sentence("Don’t die, Delfador,  please stay alive.") == "Don't die, Delfador, please stay alive."
    assert sentence("Die, villain, die, now, you villain!") is None
    assert sentence("Too short.") is None
    assert sentence("Wait... for the others to come.") is None


def test_paragraphs_of_a_manual():
    page = '<div class="para">一<em>二</em>。<div>三</div></div><p>x</p>'
    page += '<div class="other">四</div><div class="para">五</div>'
    assert module("texts").html_sentences(page) == ["一二。三", "五"]


def test_an_order_without_preference_does_not_change():
    assert module("texts").ranked(["a", "b", "c", "d"]) == module("texts").ranked(["d", "c", "b", "a"])


# ---- packages


def wheel(path, **files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/"), text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_package_is_verified_before_it_is_unpacked(tmp_path):
    packages = module("packages")
    digest = wheel(tmp_path / "a.whl", data__x="1", data__y="2")
    packages.verify(tmp_path / "a.whl", digest)
    assert packages.unpack(tmp_path / "a.whl", tmp_path / "out", ["*/x"]) == 1
    assert [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()] == ["x"]
    with pytest.raises(packages.PackageError, match="not 00"):
        packages.verify(tmp_path / "a.whl", "00")
    with pytest.raises(packages.PackageError, match="nothing like"):
        packages.unpack(tmp_path / "a.whl", tmp_path / "out", ["*/z"])


def test_nothing_is_written_outside_the_folder(tmp_path):
    packages = module("packages")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../evil", "x")
    (tmp_path / "a.whl").write_bytes(buffer.getvalue())
    with pytest.raises(packages.PackageError, match="outside"):
        packages.unpack(tmp_path / "a.whl", tmp_path / "out", ["*"])
    assert not (tmp_path / "evil").exists()


def test_what_is_there_is_not_fetched_and_what_is_unpacked_stays(tmp_path, monkeypatch):
    packages = module("packages")
    digest = wheel(tmp_path / "a.whl", data__x="1")
    row = {
        "name": "a",
        "kind": "pypi",
        "version": "1",
        "file": "a.whl",
        "sha256": digest,
        "licence": "x",
        "take": ["*"],
    }
    (tmp_path / "list.json").write_text(json.dumps([row]))
    monkeypatch.setattr(packages, "LIST", tmp_path / "list.json")
    monkeypatch.setattr(packages, "fetch", lambda *_: pytest.fail("fetched"))
    said = []
    for _ in range(2):
        folder = packages.provide(tmp_path, tmp_path / "out", said.append)["a"]
    assert (folder / "data/x").read_text() == "1"
    assert said == ["a: 1 files"]


def test_every_package_has_a_checksum_and_a_licence():
    for package in module("packages").packages():
        assert len(package.sha256) == 64
        assert package.licence
        assert package.version in package.file.replace("%3a", ":")
