"""The timeline: pictures and pages that hold what was found, whatever is missing or odd."""

import json
import re
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from vermilion.errors import FormatError
from vermilion.formats import plot, save
from vermilion.formats.timeline import envelope, pooled, prepare
from vermilion.formats.timeline_html import render_html
from vermilion.formats.timeline_png import render_picture, shade
from vermilion.transcript import Event, LanguageSpan, Sentence, Span, Transcript, Word

PNG = b"\x89PNG\r\n\x1a\n"


def example(seconds=6.0, text="你好，$x_1$ </script> <b> & world", channel=None):
    words = [
        Word("你", 0.5, 0.7, 0.95),
        Word("好", 0.7, 0.9, 0.5),
        Word("</script>", 1, 1.5, None),
        Word("$x$", 2, 3, 0.1),
    ]
    return Transcript(
        "talk {{data}}.wav",
        seconds,
        text,
        [Sentence(text, 0.4, 3.2, words, language="zh", dialect="mandarin", channel=channel)],
        [Span(0.4, 3.2)],
        words,
        [Event("speech", 0.4, 3.2), Event("music", 4, 5), Event("applause", 5, 5.5)],
        [LanguageSpan("zh", "mandarin", 0.9, 0.4, 3.2)],
        ["quiet <recording>"],
        models={"asr": "mini"},
        probabilities=np.linspace(0, 1, int(seconds * 100), dtype=np.float32),
    )


def sound(seconds=6.0):
    return np.sin(np.arange(int(seconds * 16000)) / 20).astype(np.float32)


def page_data(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])


def test_png_svg_and_html_are_written(tmp_path):
    assert plot(example(), tmp_path / "a" / "t.png", samples=sound()).read_bytes().startswith(PNG)
    ElementTree.fromstring(plot(example(), tmp_path / "t.svg", samples=sound()).read_text("utf-8"))
    assert plot(example(), tmp_path / "t.html", samples=sound()).read_text("utf-8").startswith("<!doctype html>")
    assert save(example(), tmp_path / "u.png").read_bytes().startswith(PNG)
    with pytest.raises(FormatError, match="png"):
        plot(example(), tmp_path / "t.gif")


def test_pictures_are_repeatable_and_leave_matplotlib_alone():
    before = dict(mpl.rcParams)
    timeline = prepare(example(), sound())
    assert render_picture(timeline, "png") == render_picture(timeline, "png")
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("seconds", [0.0, 0.3, 26.0, 700.0])
def test_any_length_is_drawn(seconds):
    transcript = Transcript("x", seconds, "hi", [Sentence("hi", 0, seconds)])
    assert render_picture(prepare(transcript, sound(seconds)), "png").startswith(PNG)
    assert page_data(render_html(prepare(transcript)))["duration"] >= seconds


def test_the_page_loads_nothing_and_escapes_everything():
    page = render_html(prepare(example(), sound()))
    assert not re.search(r"""(src|href)\s*=|https?://|@import|url\(""", page)
    assert page.count("</script>") == 2
    assert "<b>" not in page
    assert "&lt;recording&gt;" in page
    assert "prefers-color-scheme: dark" in page
    data = page_data(page)
    assert [w[2] for w in data["words"]] == ["你", "好", "</script>", "$x$"]
    assert list(data["events"]) == ["speech", "music", "applause"]
    assert data["languages"] == [[0.4, 3.2, "zh mandarin"]]
    assert "talk_{{data}}" in page


def test_channels_int_samples_and_event_probabilities():
    samples = (sound() * 20000).astype(np.int16)
    timeline = prepare(example(channel=1), np.stack([samples, samples]), np.ones((600, 3), np.float32))
    assert list(timeline.curves) == ["speech", "singing", "music"]
    assert timeline.samples.shape == (96000,)
    assert np.abs(timeline.samples).max() <= 1
    assert page_data(render_html(timeline))["channels"] == [1]
    assert render_picture(timeline, "png").startswith(PNG)


def test_impossible_arrays_are_refused():
    with pytest.raises(FormatError, match="samples"):
        prepare(example(), np.zeros((2, 2, 2)))
    with pytest.raises(FormatError, match="probabilities"):
        prepare(example(), None, np.zeros((5, 2), np.float32))


def test_envelope_keeps_extremes():
    samples = np.zeros(10, np.float32)
    samples[3], samples[9], samples[5] = 0.5, -0.25, np.nan
    assert envelope(samples, 4).tolist() == [[0, 0.5], [0, 0], [-0.25, 0]]
    assert envelope(np.array([16384, -32768], np.int16), 1).tolist() == [[0.5, 0.5], [-1, -1]]
    assert envelope(samples[:0], 4).shape == (0, 2)
    assert pooled(np.array([0, 1, 0.5], np.float32), 2).tolist() == [1, 0.5]


def test_low_confidence_looks_different():
    assert len({shade(c) for c in (0.95, 0.8, 0.65, 0.5, 0.1, None)}) == 6


def test_a_machine_without_chinese_fonts_gets_a_remark(monkeypatch):
    from vermilion.formats import timeline_png

    monkeypatch.setattr(timeline_png, "_CJK_FONTS", ())
    monkeypatch.setattr(timeline_png, "_CJK_FILES", ("no such font",))
    fonts, chinese = timeline_png._fonts()
    assert not chinese
    assert "DejaVu Sans" in fonts
    assert any("Chinese" in r for r in timeline_png._remarks(prepare(example()), 1, 1, chinese))
    assert render_picture(prepare(example()), "png").startswith(PNG)
