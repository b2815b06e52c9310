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
from vermilion.errors import FormatError, OptionsError
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
