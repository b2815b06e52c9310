"""Manifests of the kinds that people have, read lazily, with every fault named by its line."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vermilion.errors import AudioError, ManifestError
from vermilion.manifests import Utterance, iterate_manifest, read_manifest, write_manifest


def lines(path, rows):
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf8")
    return path


def test_native_lines_keep_what_they_say_and_resolve_paths(tmp_path):
    row = {"audio_filepath": "a/talk.wav", "offset": 1.5, "duration": 2, "text": "你好", "lang": "zh", "id": "u1"}
    found = read_manifest(lines(tmp_path / "m.jsonl", [{**row, "speaker": 7, "snr": 10}]))[0]
    assert found == Utterance("u1", str(tmp_path / "a/talk.wav"), 1.5, 2.0, "你好", "zh", "7", {"snr": 10})


def test_wenet_lines_and_gzip(tmp_path):
    with gzip.open(tmp_path / "data.list.gz", "wt", encoding="utf8") as out:
        out.write('{"key": "k", "wav": "/x/k.wav", "txt": "hello"}\n\n')
    assert read_manifest(tmp_path / "data.list.gz") == [Utterance("k", "/x/k.wav", text="hello")]


def test_lines_without_an_id_are_named_after_their_stretch(tmp_path):
    rows = [{"audio_filepath": "t.wav"}, {"audio_filepath": "t.wav", "offset": 1.0, "duration": 0.5}]
    assert [u.id for u in read_manifest(lines(tmp_path / "m.jsonl", rows))] == ["t", "t_1000_500"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "line 2 is no JSON"),
        ("[]", "line 2 is no JSON object"),
        ("{}", "names no recording"),
        ('{"audio_filepath": "a", "offset": -1}', "offset is -1"),
        ('{"audio_filepath": "a", "duration": "x"}', "duration is 'x'"),
        ('{"audio_filepath": "a", "text": 3}', "text is 3"),
        ('{"audio_filepath": {}}', "audio is"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "m.jsonl"
    path.write_text('{"audio_filepath": "fine.wav"}\n' + line + "\n")
    with pytest.raises(ManifestError, match=message):
        read_manifest(path)


def test_reading_is_lazy(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"audio_filepath": "fine.wav"}\nnonsense\n')
    assert next(iterate_manifest(path)).id == "fine"


def test_missing_and_empty_manifests(tmp_path):
    with pytest.raises(ManifestError, match="cannot read"):
        read_manifest(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ManifestError, match="lists no recording"):
        read_manifest(tmp_path / "empty.jsonl")


def kaldi(folder):
    (folder / "wav.scp").write_text("r1 long one.wav\nr2\t/abs/two.wav\n")
    (folder / "text").write_text("u1 你 好\nu2 hi\n")
    (folder / "utt2lang").write_text("u1 zh\nu2 en\n")
    (folder / "utt2spk").write_text("u1 s1\n")
    return folder


def test_kaldi_folder_with_segments(tmp_path):
    (kaldi(tmp_path) / "segments").write_text("u1 r1 0.5 1.75\nu2 r2 0 2\n")
    first, second = read_manifest(tmp_path)
    assert first == Utterance("u1", str(tmp_path / "long one.wav"), 0.5, 1.25, "你 好", "zh", "s1")
    assert (second.audio, second.language, second.speaker) == ("/abs/two.wav", "en", None)


def test_kaldi_waves_alone_and_commands_refused(tmp_path):
    (tmp_path / "wav.scp").write_text("a a.wav\n")
    assert read_manifest(tmp_path / "wav.scp") == [Utterance("a", str(tmp_path / "a.wav"))]
    (tmp_path / "wav.scp").write_text("a sox x.wav - |\n")
    with pytest.raises(ManifestError, match="is a command"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("line", ["u1 r1 0.5", "u1 r1 a b", "u1 r9 0 1"])
def test_kaldi_segments_that_do_not_fit(tmp_path, line):
    (kaldi(tmp_path) / "segments").write_text(line + "\n")
    with pytest.raises(ManifestError, match="line 1"):
        read_manifest(tmp_path)


def test_what_is_written_reads_back_wherever_the_folder_goes(tmp_path):
    utterances = [Utterance("u", str(tmp_path / "data/a.wav"), 0.0, 1.0, "x", "en", None, {"set": "dev"})]
    assert write_manifest(tmp_path / "data/m.jsonl", utterances) == 1
    assert json.loads((tmp_path / "data/m.jsonl").read_text())["audio_filepath"] == "a.wav"
    (tmp_path / "data").rename(tmp_path / "moved")
    assert read_manifest(tmp_path / "moved/m.jsonl")[0].audio == str(tmp_path / "moved/a.wav")


def test_a_stretch_is_loaded(tmp_path):
    samples = np.linspace(-0.5, 0.5, 32000, dtype=np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    got = Utterance("u", str(tmp_path / "a.wav"), 0.5, 0.25).load()
    assert np.array_equal(got, samples[8000:12000])
    with pytest.raises(AudioError, match="before 3.00 s"):
        Utterance("u", str(tmp_path / "a.wav"), 3.0).load()


def collected(path):
    faults = []
    return list(iterate_manifest(path, lambda number, error: faults.append((number, str(error))))), faults


def test_wenet_lists_with_start_and_end(tmp_path):
    row = {"key": "c", "wav": "c.wav", "txt": "x", "start": 0.5, "end": 2.5}
    rows = [row, {**row, "key": "d", "end": -1}, {**row, "key": "e", "end": 0.1}, {**row, "key": "f", "start": "x"}]
    found, faults = collected(lines(tmp_path / "data.list", rows))
    assert [(u.id, u.offset, u.duration, u.extra) for u in found] == [("c", 0.5, 2.0, {}), ("d", 0.5, None, {})]
    assert [n for n, _ in faults] == [3, 4]


def test_a_json_array_is_a_manifest_too(tmp_path):
    (tmp_path / "m.json").write_text(json.dumps([{"audio_filepath": "a.wav"}, 3, {"wav": "b.wav"}], indent=1))
    found, faults = collected(tmp_path / "m.json")
    assert [u.id for u in found] == ["a", "b"]
    assert [n for n, _ in faults] == [2]


def test_kaldi_channels_of_segments_and_of_recordings(tmp_path):
    (tmp_path / "wav.scp").write_text("call call.wav\ncall2 call2.wav\n")
    (tmp_path / "reco2file_and_channel").write_text("call-A call A\ncall-B call B\n")
    assert [(u.id, Path(u.audio).name, u.channel) for u in read_manifest(tmp_path)] == [
        ("call2", "call2.wav", None),
        ("call-A", "call.wav", 0),
        ("call-B", "call.wav", 1),
    ]
    (tmp_path / "segments").write_text("u1 call-B 0 1\nu2 call2 0 1 1\nu3 call2 0 1 B\n")
    assert [u.channel for u in read_manifest(tmp_path)] == [1, 1, 1]
    stereo = np.stack([np.full(16000, 0.25), np.full(16000, -0.25)], axis=1)
    soundfile.write(tmp_path / "call.wav", stereo, 16000)
    assert read_manifest(tmp_path)[0].load().max() < 0


def test_one_bad_line_of_kaldi_costs_itself(tmp_path):
    (kaldi(tmp_path) / "segments").write_text("u1 r1 0.5 1\nbad r1\nu3 r9 0 1\nu4 r1 nan 1\nu5 r2 0 1 9z\nu2 r2 0 2\n")
    found, faults = collected(tmp_path)
    assert [u.id for u in found] == ["u1", "u2"]
    assert [n for n, _ in faults] == [2, 3, 4, 5]
    (tmp_path / "segments").unlink()
    (tmp_path / "wav.scp").write_bytes(b"a a.wav\nb\nc sox x |\n\xff\xfe x.wav\nd d.wav\n")
    found, faults = collected(tmp_path)
    assert [u.id for u in found] == ["a", "d"]
    assert [n for n, _ in faults] == [2, 3, 4]


def test_rows_of_stretches_have_the_times_of_the_recording():
    from vermilion.cluster.provenance import Provenance
    from vermilion.cluster.rows import row
    from vermilion.transcript import Sentence, Span, Transcript, Word

    word = Word("hi", 0.5, 1.0)
    said = Transcript("a", 2.0, "hi", [Sentence("hi", 0.5, 1.0, [word])], [Span(0.25, 1.25)], [word])
    got = row(Utterance("u", "a.wav", 10.0, 2.0), said, Provenance())
    assert (got["offset_s"], got["dur_s"], got["manifest"]["offset"]) == (10.0, 2.0, 10.0)
    assert (got["words"][0]["start_ms"], got["sentences"][0]["start_ms"]) == (10500, 10500)
    assert got["vad_segments_ms"] == [[10250, 11250]]
    assert "offset_s" not in row(Utterance("u", "a.wav"), said, Provenance())
