"""Inputs found and outputs named: every recording once, nothing written twice, nothing done twice."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vermilion.cli import STDIN, normalised
from vermilion.cli.inputs import Item, expand
from vermilion.cli.outputs import Target, names, parse_formats, plan
from vermilion.cli.reading import stamp, transcript_text
from vermilion.cli.state import FILE, Identity, State
from vermilion.errors import FormatError, OptionsError
from vermilion.formats import write_atomically
from vermilion.transcript import Sentence, Transcript


def touch(path, content="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_folders_are_searched_and_only_recordings_are_taken(tmp_path):
    for name in ("b.wav", "a.MP4", "deep/er/c.opus", "notes.txt", ".hidden.wav", ".cache/d.wav", "._b.wav"):
        touch(tmp_path / name)
    items, problems = expand([str(tmp_path)])
    assert [str(i.path.relative_to(tmp_path)) for i in items] == ["a.MP4", "b.wav", "deep/er/c.opus"]
    assert problems == []


def test_globs_literals_and_duplicates(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a1.wav", "a2.wav", "x[1].wav", "sub/a3.wav"):
        touch(tmp_path / name)
    items, problems = expand(["a?.wav", "**/a3.wav", "x[1].wav", "a1.wav", "./a1.wav", "zz*.wav"])
    assert [i.name for i in items] == ["a1.wav", "a2.wav", "sub/a3.wav", "x[1].wav"]
    assert problems == ["no file matches zz*.wav"]


def test_a_missing_file_stays_an_item_but_nothing_at_all_is_wrong_usage(tmp_path):
    items, _ = expand([str(tmp_path / "missing.wav"), STDIN])
    assert [i.name for i in items] == [str(tmp_path / "missing.wav"), STDIN]
    with pytest.raises(OptionsError, match="holds no audio"):
        expand([str(tmp_path)])


def test_dash_visualize_and_debug_are_made_readable_for_the_parser():
    assert normalised(["-", "--visualize", "a.wav"]) == ([STDIN, "--visualize=png", "a.wav"], False)
    assert normalised(["--visualize", "html", "--debug"]) == (["--visualize", "html"], True)
    assert normalised(["--", "-", "--debug"]) == (["--", "-", "--debug"], False)


def test_output_names():
    def named(*paths, root=None):
        return [str(n) for n in names([Item(Path(p), Path(root) if root else None) for p in paths])]

    assert named("x/a.wav", "y/b.wav") == ["a", "b"]
    assert named("r/x/a.wav", "r/y/a.wav", "r/c.wav", root="r") == ["x/a", "y/a", "c"]
    assert named("a.wav", "a.mp3") == ["a.wav", "a.mp3"]
    assert named("a.b.wav") == ["a.b"]
    assert named("x/a.wav", "y/a.wav") == ["x-a.wav", "y-a.wav"]
    assert len(set(named("1/x/a.wav", "2/x/a.wav"))) == 2
    assert named("A.wav", "a.wav", "b.wav")[2] == "b"


PARTS = st.sampled_from(["a", "A", "b", "a.wav", "a-2", "é", "e\u0301"])
PATHS = st.tuples(st.lists(PARTS, min_size=0, max_size=2), PARTS, st.sampled_from([".wav", ".mp3", ""]))


@given(st.lists(PATHS, max_size=8, unique_by=str), st.booleans())
def test_no_two_recordings_share_an_output(paths, rooted):
    import unicodedata

    items = [
        Item(Path("root", *folders, stem + suffix), Path("root") if rooted else None) for folders, stem, suffix in paths
    ]
    targets = plan(items, Path("out"), ["srt", "json"], "png")
    written = [unicodedata.normalize("NFC", str(p)).casefold() for t in targets for p in t.all]
    assert len(written) == len(set(written))
    assert all(Path("out") in p.parents and ".." not in p.parts for t in targets for p in t.all)


def test_done_means_all_there_not_empty_and_newer(tmp_path):
    recording = touch(tmp_path / "a.wav")
    target = Target(Item(recording), (tmp_path / "a.srt", tmp_path / "a.json"))
    assert not target.done()
    touch(tmp_path / "a.srt")
    assert not target.done()
    touch(tmp_path / "a.json")
    assert target.done()
    touch(tmp_path / "a.srt", "")
    assert not target.done()
    touch(tmp_path / "a.srt")
    os.utime(tmp_path / "a.srt", (1, 1))
    assert not target.done()
    assert not Target(Item(None), (tmp_path / "a.json",)).done()


def test_formats():
    assert parse_formats(["srt", "json,.SRT", "textgrid"]) == ["srt", "json", "TextGrid"]
    assert parse_formats(None) == []
    with pytest.raises(FormatError, match="unknown format docx"):
        parse_formats(["docx"])


def test_clauses_are_joined_for_reading_and_times_round():
    def said(text, start, end, language="en"):
        return Sentence(text, start, end, language=language)

    sentences = [
        said("I'm fine,", 1.0, 1.5),
        said("thank you.", 1.5, 2.0),
        said("好，", 3, 4, "zh"),
        said("Yes,", 4, 5),
    ]
    text = transcript_text(Transcript("a", 70.0, sentences=[*sentences, said("no.", 65.96, 67)])).plain
    assert text == "[00:01.0] (en) I'm fine, thank you.\n[00:03.0] (zh) 好，\n[00:04.0] (en) Yes,\n[01:06.0] no.\n"
    assert (stamp(3599.96), stamp(59.996, 2), stamp(0.05, 2)) == ("1:00:00.0", "01:00.00", "00:00.05")


# ---- what a recording is


def transcribed(folder, recording, formats=("srt",)):
    """One run: plan, and unless it is done, write; returns the name of the outputs and whether they were made."""
    state = State(folder)
    (target,) = plan([Item(recording)], folder, formats, None, state)
    if target.done(state):
        return target.name.as_posix(), False
    for path in target.paths:
        touch(path)
    state.note(target.all, Identity.of(recording))
    return target.name.as_posix(), True


def test_two_recordings_of_one_name_never_stand_for_each_other(tmp_path, monkeypatch):
    a, b, c = (touch(tmp_path / name / "talk.wav", name * 9) for name in ("a", "b", "deep/b"))
    out = tmp_path / "out"
    out.mkdir()
    assert [transcribed(out, p) for p in (a, b)] == [("talk", True), ("b-talk.wav", True)]
    name, made = transcribed(out, c)
    assert made
    assert name.startswith("b-talk.wav-")
    assert [transcribed(out, p)[1] for p in (a, b, c)] == [False] * 3
    monkeypatch.chdir(a.parent)
    assert transcribed(out, Path("talk.wav")) == ("talk", False)
    monkeypatch.chdir(b.parent)
    assert transcribed(out, Path("talk.wav")) == ("b-talk.wav", False)


def test_a_replaced_recording_is_done_again_whatever_its_time(tmp_path):
    recording = touch(tmp_path / "x.wav", "one")
    assert transcribed(tmp_path, recording) == ("x", True)
    touch(recording, "two")
    os.utime(recording, (1, 1))
    assert [transcribed(tmp_path, recording) for _ in range(2)] == [("x", True), ("x", False)]
    status = recording.stat()
    touch(recording, "owt")
    os.utime(recording, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert transcribed(tmp_path, recording) == ("x", True)  # size and time in common


def test_each_output_knows_its_own_recording(tmp_path):
    recording = touch(tmp_path / "x.wav", "one")
    transcribed(tmp_path, recording, ("srt", "json"))
    touch(recording, "two!")
    assert transcribed(tmp_path, recording, ("srt",)) == ("x", True)
    assert transcribed(tmp_path, recording, ("srt", "json")) == ("x", True)  # the json is of the first one


def test_a_moved_recording_keeps_its_outputs(tmp_path):
    recording = touch(tmp_path / "in/x.wav")
    transcribed(tmp_path, recording)
    (tmp_path / "in").rename(tmp_path / "moved")
    assert transcribed(tmp_path, tmp_path / "moved/x.wav") == ("x", False)


def test_names_are_kept_without_a_loss(tmp_path):
    names_ = [b"\xff.wav", b"\xfe.wav", "\u00e9.wav".encode(), "e\u0301.wav".encode()]
    try:
        recordings = [touch(tmp_path / os.fsdecode(n), str(i)) for i, n in enumerate(names_)]
    except OSError:
        pytest.skip("this file system takes no such names")
    if len(list(tmp_path.iterdir())) < len(names_):
        pytest.skip("this file system takes some of the names for the same")
    first = [transcribed(tmp_path, r) for r in recordings]
    assert all(made for _, made in first)
    assert len({name for name, _ in first}) == len(names_)
    assert [transcribed(tmp_path, r) for r in recordings] == [(name, False) for name, _ in first]


def test_a_torn_line_of_the_state_costs_itself(tmp_path):
    recording = touch(tmp_path / "x.wav")
    with (tmp_path / FILE).open("wb") as out:
        out.write(b'nonsense\n[]\n{"outputs": ["y.srt"], "path')
    assert [transcribed(tmp_path, recording)[1] for _ in range(2)] == [True, False]


@pytest.mark.parametrize("stem", ["\u8bb2" * 80, "\u8bb2" * 83, "n" * 251, "n" * 240])
def test_long_names_are_cut_with_a_hash_before_the_work(tmp_path, stem):
    items = [Item(tmp_path / f"{stem}.wav"), Item(tmp_path / f"{stem[:-1]}m.wav")]
    targets = plan(items, tmp_path, ["srt", "json", "TextGrid"], "html")
    paths = [p for t in targets for p in t.all]
    assert len(set(paths)) == 8
    for path in paths:
        write_atomically(path, "x")
        assert path.read_text() == "x"


def test_the_advice_fits_the_error(tmp_path):
    with pytest.raises(FormatError, match="too long; choose a shorter name"):
        write_atomically(tmp_path / ("n" * 300), "x")
    touch(tmp_path / "file")
    with pytest.raises(FormatError, match="choose another folder"):
        write_atomically(tmp_path / "file" / "x", "x")


# ---- folders


def test_folders_say_what_they_leave_out_and_follow_links_once(tmp_path):
    for name in ("in/a.w64", "in/b.TXT", "in/c.txt", "in/README", "else/d.sph"):
        touch(tmp_path / name)
    (tmp_path / "in/linked").symlink_to(tmp_path / "else")
    (tmp_path / "in/again").symlink_to(tmp_path / "else")
    (tmp_path / "in/round").symlink_to(tmp_path / "in")
    (tmp_path / "in/gone.wav").symlink_to(tmp_path / "nothing.wav")
    (tmp_path / "in/gone").symlink_to(tmp_path / "nothing")
    notes = []
    items, problems = expand([str(tmp_path / "in")], notes)
    assert [i.path.relative_to(tmp_path / "in").as_posix() for i in items] == ["a.w64", "again/d.sph", "gone.wav"]
    assert problems == []
    assert "gone is a link that leads nowhere" in notes[0]
    assert "3 other files were left out (2 .txt, 1 without suffix)" in notes[1]


def test_what_the_reader_knows_is_what_folders_take():
    from vermilion.audio.kinds import suffixes

    wanted = "w64 aifc gsm voc asf eac3 sph g722 latm sbc mpga vob mxf 3g2 awb snd qt f4v dss wav opus mp4 webm m4b ts"
    assert {f".{name}" for name in wanted.split()} <= suffixes()
    assert not {".txt", ".json", ".srt", ".png", ".jpg", ".heic", ".py", ".m3u8"} & suffixes()


def test_quoted_patterns_with_brackets(tmp_path):
    touch(tmp_path / "talk [1]/a.wav")
    assert len(expand([str(tmp_path / "talk [1]/*.wav")])[0]) == 1
