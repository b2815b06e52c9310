"""Test sets of others: small imitations of the layouts that their owners distribute → manifests."""

import json

import numpy as np
import pytest
import soundfile

from vermilion.cli import main
from vermilion.errors import ManifestError, OptionsError
from vermilion.evaluation import published
from vermilion.evaluation.corpora import PREPARERS, prepare
from vermilion.evaluation.corpora.dialects import cleaned
from vermilion.evaluation.corpora.reading import json_objects
from vermilion.manifests import read_manifest


def wave(path, seconds=0.1):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(round(16000 * seconds), np.float32), 16000, format="WAV")


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf8")


def prepared(name, folder, tmp_path):
    count = prepare(name, folder, tmp_path / "out")
    rows = read_manifest(tmp_path / "out" / f"{name}.jsonl")
    assert count == len(rows)
    assert all(row.load() is not None for row in rows)
    return rows


def test_every_set_of_the_tables_can_be_prepared():
    assert set(published.groups()["All-24"]) | {"fleurs", "commonvoice"} == set(PREPARERS)


def test_aishell1(tmp_path):
    root = tmp_path / "data_aishell"
    wave(root / "wav/test/S0764/BAC009S0764W0121.wav")
    wave(root / "wav/test/S0764/BAC009S0764W9999.wav")  # has no text
    wave(root / "wav/train/S0002/BAC009S0002W0122.wav")
    texts = "BAC009S0002W0122 而 对 楼市\nBAC009S0764W0121 甚至 出现 交易\n"
    write(root / "transcript/aishell_transcript_v0.8.txt", texts)
    for folder in (tmp_path, root):
        (row,) = prepared("aishell1", folder, tmp_path)
        assert (row.id, row.text, row.language, row.speaker) == ("BAC009S0764W0121", "甚至出现交易", "zh", "S0764")


def test_aishell1_with_packed_archives_says_so(tmp_path):
    write(tmp_path / "transcript/aishell_transcript_v0.8.txt", "a b\n")
    write(tmp_path / "wav/test/S1.tar.gz", "")
    with pytest.raises(ManifestError, match="unpack"):
        prepare("aishell1", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out/aishell1.jsonl").exists()


def test_aishell2(tmp_path):
    root = tmp_path / "iOS/test"
    wave(root / "wav/T0011/IT0011W0001.wav")
    write(root / "wav.scp", "IT0011W0001\twav/T0011/IT0011W0001.wav\n")
    write(root / "trans.txt", "IT0011W0001\t换一首歌\n")
    (row,) = prepared("aishell2", tmp_path, tmp_path)
    assert (row.id, row.text, row.speaker) == ("IT0011W0001", "换一首歌", "T0011")
    write(root / "trans.txt", "IT0011W0002\t换一首歌\n")
    with pytest.raises(ManifestError, match="no text for IT0011W0001"):
        prepare("aishell2", tmp_path, tmp_path / "out")


def wenet(tmp_path):
    def segment(sid, begin, end, subset, text):
        return {"sid": sid, "begin_time": begin, "end_time": end, "subsets": [subset], "text": text}

    audios = [
        {"aid": "Y1", "path": "audio/train/Y1.opus", "segments": [segment("Y1_S0", 0, 1, "L", "训练")]},
        {"aid": "N", "path": "audio/test_net/N.wav", "segments": [segment("N_S0", 0.5, 1.25, "TEST_NET", "网络")]},
        {"aid": "M", "path": "audio/test_meeting/M.wav", "segments": [segment("M_S0", 0, 0.5, "TEST_MEETING", "会议")]},
    ]
    wave(tmp_path / "audio/test_net/N.wav", 2)
    wave(tmp_path / "audio/test_meeting/M.wav", 1)
    write(
        tmp_path / "WenetSpeech.json", json.dumps({"version": "v1.0", "audios": audios}, ensure_ascii=False, indent=1)
    )


def test_wenetspeech(tmp_path):
    wenet(tmp_path)
    (row,) = prepared("ws-net", tmp_path, tmp_path)
    assert (row.id, row.offset, row.duration, row.text) == ("N_S0", 0.5, 0.75, "网络")
    assert len(row.load()) == 12000
    assert [r.text for r in prepared("ws-meeting", tmp_path, tmp_path)] == ["会议"]


def test_a_list_larger_than_memory_is_read_in_pieces(tmp_path):
    objects = [{"a": '[{"' * 50 + str(i), "deep": [{"audios": []}]} for i in range(8000)]
    write(tmp_path / "x.json", json.dumps({"first": 1, "audios": objects, "last": [1]}))
    assert (tmp_path / "x.json").stat().st_size > 1 << 20
    assert list(json_objects(tmp_path / "x.json", "audios")) == objects
    write(tmp_path / "cut.json", (tmp_path / "x.json").read_text()[:5000])
    with pytest.raises(ManifestError, match="ends before"):
        list(json_objects(tmp_path / "cut.json", "audios"))


def test_kespeech(tmp_path):
    tasks = tmp_path / "Tasks/ASR/test"
    wave(tmp_path / "Audio/a.wav")
    wave(tmp_path / "Audio/b.wav")
    write(tasks / "wav.scp", "a Audio/a.wav\nb Audio/b.wav\n")
    write(tasks / "text", "a 我 <SPOKEN_NOISE> 在\nb 你好\n")
    write(tasks / "utt2subdialect", "a Southwestern\nb Mandarin\n")
    first, second = prepared("kespeech", tmp_path, tmp_path)
    assert (first.text.split(), first.language, first.extra) == (
        ["我", "在"],
        "zh xinan",
        {"subdialect": "Southwestern"},
    )
    assert second.language == "zh mandarin"


def test_opencpop_with_lyrics_in_either_file(tmp_path):
    segments = tmp_path / "segments"
    wave(segments / "wavs/2001000001.wav")
    line = "2001000001|感受停在我发端的指尖|g an sh ou|rest C4|0.1 0.2|0.1 0.2|0 0\n"
    write(segments / "test.txt", line)
    assert [r.text for r in prepared("opencpop", tmp_path, tmp_path)] == ["感受停在我发端的指尖"]
    write(segments / "test.txt", "2001000001\n")
    write(segments / "transcriptions.txt", line)
    assert [r.text for r in prepared("opencpop", tmp_path, tmp_path)] == ["感受停在我发端的指尖"]
    write(segments / "test.txt", "2001000009|词\n")
    with pytest.raises(ManifestError, match="2001000009"):
        prepare("opencpop", tmp_path, tmp_path / "out")


def test_wenetspeech_yue_as_json_lines_and_chuan_as_recordings_with_texts_beside(tmp_path):
    wave(tmp_path / "yue/wavs/a.wav")
    write(tmp_path / "yue/Short.jsonl", json.dumps({"wav": "a.wav", "text": "你好(佢話)*"}) + "\n")
    (row,) = prepared("ws-yue-short", tmp_path / "yue", tmp_path)
    assert (row.id, row.text, row.language) == ("a", "你好佢話", "zh yue")
    wave(tmp_path / "chuan/WSC-Eval-Easy/b.wav")
    write(tmp_path / "chuan/WSC-Eval-Easy/b.txt", "巴适\n")
    assert prepared("ws-chuan-easy", tmp_path / "chuan", tmp_path)[0].text == "巴适"
    with pytest.raises(ManifestError, match="'hard'"):
        prepare("ws-chuan-hard", tmp_path / "chuan", tmp_path / "out")


def test_magicdata_in_its_three_forms(tmp_path):
    wave(tmp_path / "read/test/5_541/5_541_2017.wav")
    write(tmp_path / "read/test/TRANS.txt", "UtteranceID\tSpeakerID\tTranscription\n5_541_2017.wav\t5_541\t来一段\n")
    assert prepared("md-heavy", tmp_path / "read", tmp_path)[0].text == "来一段"
    wave(tmp_path / "daily/WAV/G0001/G0001_S0001.wav")
    heading = "CHANNEL\tUTTRANS_ID\tSPEAKER_ID\tPROMPT\tTRANSCRIPTION\n"
    write(tmp_path / "daily/UTTRANSINFO.txt", heading + "C0\tG0001_S0001.wav\tG0001\t\t食咗飯未\n")
    (row,) = prepared("md-yue-daily", tmp_path / "daily", tmp_path)
    assert (row.text, row.speaker, row.language) == ("食咗飯未", "G0001", "zh yue")
    wave(tmp_path / "conv/WAV/A1.wav", 4)
    turns = (
        "[0.500,1.500]\tG1\t男,四川\t要得[+]\n[1.500,2.000]\t0\tNone\t[LAUGHTER]\n[2.000,3.250]\tG2\t女,四川\t*好嘛\n"
    )
    write(tmp_path / "conv/TXT/A1.txt", turns)
    rows = prepared("md-chuan-conv", tmp_path / "conv", tmp_path)
    assert [(r.offset, r.duration, r.text, r.speaker) for r in rows] == [
        (0.5, 1, "要得", "G1"),
        (2, 1.25, "好嘛", "G2"),
    ]
    with pytest.raises(ManifestError, match="holds none of"):
        prepare("md-wu", tmp_path, tmp_path / "out")


def test_fleurs_takes_the_languages_of_the_report(tmp_path):
    for configuration in ("cmn_hans_cn", "he_il", "zu_za"):  # the last has no label
        wave(tmp_path / f"data/{configuration}/audio/test/1.wav")
        row = ["7", "1.wav", "Written.", "spoken", "s p o k e n", "1600", "MALE"]
        write(tmp_path / f"data/{configuration}/test.tsv", "\t".join(row) + "\n")
    rows = prepared("fleurs", tmp_path, tmp_path)
    assert [(r.id, r.language, r.text, r.duration) for r in rows] == [
        ("cmn_hans_cn-1", "zh", "spoken", 0.1), ("he_il-1", "iw", "spoken", 0.1),
    ]  # fmt: skip


def test_common_voice(tmp_path):
    for locale in ("sv-SE", "zh-HK"):
        wave(tmp_path / f"{locale}/clips/common_voice_1.mp3")
        write(tmp_path / f"{locale}/test.tsv", 'client_id\tpath\tsentence\nc1\tcommon_voice_1.mp3\tHej "du\n')
    (row,) = prepared("commonvoice", tmp_path, tmp_path)
    assert (row.language, row.text, row.speaker, row.extra) == ("sv", 'Hej "du', "c1", {"locale": "sv-SE"})


def test_a_missing_recording_is_named(tmp_path):
    write(tmp_path / "iOS/test/wav.scp", "a\twav/a.wav\n")
    write(tmp_path / "iOS/test/trans.txt", "a\t好\n")
    with pytest.raises(ManifestError, match=r"wav/a.wav is missing"):
        prepare("aishell2", tmp_path, tmp_path / "out")


def test_unknown_names_and_folders(tmp_path):
    with pytest.raises(OptionsError, match="aishell1"):
        prepare("aishell9", tmp_path, tmp_path)
    with pytest.raises(ManifestError, match="there is no folder"):
        prepare("aishell1", tmp_path / "nowhere", tmp_path)


def test_notes_of_the_owners_are_taken_out():
    assert cleaned("嗯(对)  [LAUGHTER]*是") == "嗯对 是"


def test_the_command(tmp_path, capsys):
    wave(tmp_path / "iOS/test/wav/T1/a.wav")
    write(tmp_path / "iOS/test/wav.scp", "a\twav/T1/a.wav\n")
    write(tmp_path / "iOS/test/trans.txt", "a\t好\n")
    out = tmp_path / "named.jsonl"
    assert main(["prepare", "aishell2", str(tmp_path), "-o", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"set": "aishell2", "manifest": str(out), "utterances": 1}
    assert main(["prepare", "--list"]) == 0
    assert "ws-net\n" in capsys.readouterr().out
    assert main(["prepare", "aishell2"]) == 2
