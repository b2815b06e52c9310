"""The web page in headless Chromium, against a real server with fake engines."""

import io
import json
import re
import shutil
import wave

import numpy as np
import pysubs2
import pytest
from server_helpers import serving, tone, wav

from vermilion.server.keys import KeyFile
from vermilion.testing import FakeModels

playwright = pytest.importorskip("playwright.sync_api", reason="the page is tested where playwright is installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="the page is tested where Chromium is installed")
HOSTILE = "<img src=x onerror=document.title='hacked'>.wav"


@pytest.fixture(scope="module")
def microphone(tmp_path_factory):
    """What the fake microphone plays, over and over."""
    path = tmp_path_factory.mktemp("sound") / "speech.wav"
    samples = np.concatenate([np.zeros(16000), tone(440, 1.5), np.zeros(24000)])
    path.write_bytes(wav(samples))
    return path


@pytest.fixture(scope="module")
def browser(microphone):
    with playwright.sync_playwright() as tool:
        found = tool.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={microphone}",
                "--autoplay-policy=no-user-gesture-required",
                "--no-sandbox",
            ],
        )
        yield found
        found.close()


@pytest.fixture(scope="module")
def url():
    with serving() as found:
        yield found


@pytest.fixture
def page(browser, url):
    """A page that may not complain, and may ask nobody but its server."""
    context = browser.new_context(accept_downloads=True, locale="en-GB", color_scheme="light")
    context.grant_permissions(["microphone"])
    found = context.new_page()
    trouble = []
    found.on("console", lambda m: trouble.append(m.text) if m.type in ("error", "warning") else None)
    found.on("pageerror", lambda e: trouble.append(str(e)))
    found.on("request", lambda r: None if r.url.startswith((url, "blob:", "data:")) else trouble.append(r.url))
    found.set_default_timeout(15_000)
    found.goto(url)
    yield found
    context.close()
    assert trouble == []


def send(page, samples, name="talk.wav"):
    page.set_input_files("#file", [{"name": name, "mimeType": "audio/wav", "buffer": wav(samples)}])
    page.wait_for_selector("#viewer:not([hidden]) #transcript li")


TALK = np.concatenate([tone(300), tone(400), np.zeros(16000), tone(500)])


def until(page, condition, seconds=15):
    """Playwright's own waiting for a function needs eval, which the page's policy forbids."""
    for _ in range(int(seconds * 20)):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(condition)


def texts(page):
    return page.locator("#transcript .text").all_inner_texts()


def fetched(page, selector):
    with page.expect_download() as found:
        page.click(selector)
    return found.value.suggested_filename, found.value.path().read_text("utf-8")


def test_flags_of_a_sentence_are_a_mark_with_its_reasons(page):
    page.evaluate("""async () => {
      const said = (text, flags) => ({ text, flags, words: [], start_ms: 0, end_ms: 900 });
      const sentences = [said("No no.", ["repetition", "from-the-future"]), said("Yes.", [])];
      const { show } = await import("/page/viewer.js");
      document.getElementById("viewer").hidden = false;
      show("talk", { dur_s: 1, vad_segments_ms: [], sentences }, null, () => {});
    }""")
    [mark] = page.locator("#transcript .flag").all()
    assert mark.get_attribute("title") == "a repetition loop was cut out of the text; from-the-future"
    assert mark.get_attribute("aria-label") == mark.get_attribute("title")
    assert texts(page) == ["No no.", "Yes."]
    page.click("#tongue")
    assert page.locator("#transcript .flag").get_attribute("title").startswith("已删去")


def test_from_a_file_to_corrected_subtitles(page):
    send(page, TALK)
    assert texts(page) == ["Tone 300 hertz.", "Tone 400 hertz.", "Tone 500 hertz."]
    assert page.locator("#lane-speech span").count() == 3
    assert page.locator("#lane-event .music").inner_text() == "music"
    assert page.locator("#lane-language span").first.inner_text() == "English"
    place = page.locator("#lane-speech span").nth(2).evaluate("e => [e.style.left, e.style.width]")
    assert place == ["75%", "25%"]
    page.wait_for_selector("#wave :host, #wave div")
    page.locator(".word", has_text="400").click()  # from there it plays
    until(page, "parseInt(document.getElementById('clock').textContent.split(':')[1]) >= 1")
    page.locator("#transcript .text").nth(1).fill("Corrected & <b>safe</b>.")
    name, srt = fetched(page, '[data-format="srt"]')
    assert name == "talk.srt"
    cues = pysubs2.SSAFile.from_string(srt)
    assert [(c.start, c.end) for c in cues] == [(0, 1000), (1000, 2000), (3000, 4000)]
    assert "Corrected" in srt.split("\n\n")[1]
    assert "&lt;b&gt;" in fetched(page, '[data-format="vtt"]')[1]
    assert fetched(page, '[data-format="txt"]')[1].splitlines() == [
        "Tone 300 hertz.", "Corrected & <b>safe</b>.", "Tone 500 hertz.",
    ]  # fmt: skip
    found = json.loads(fetched(page, '[data-format="json"]')[1])
    assert found["text"] == "Tone 300 hertz. Corrected & <b>safe</b>. Tone 500 hertz."
    assert found["sentences"][1]["edited"] is True
    assert page.locator("#transcript li.edited").count() == 1


def test_a_word_is_heard_where_it_stands(page):
    send(page, TALK)
    until(page, "!document.getElementById('play').disabled")
    page.locator(".word", has_text="500").click()
    page.wait_for_selector(".word.now")
    assert page.locator("#transcript li").nth(2).locator(".word.now").count() == 1


def test_by_keyboard_alone(page):
    send(page, np.concatenate([TALK, TALK]))
    until(page, "!document.getElementById('play').disabled")
    page.evaluate("document.activeElement.blur(); document.getElementById('main').focus()")
    page.keyboard.press("ArrowRight")
    until(page, "document.getElementById('clock').textContent.startsWith('0:05')")
    page.wait_for_timeout(500)  # the seek is over
    page.keyboard.press("ArrowLeft")
    until(page, "document.getElementById('clock').textContent.startsWith('0:00')")
    page.wait_for_timeout(500)
    page.keyboard.press("Space")
    until(page, "document.getElementById('play').textContent === 'Pause'")
    page.keyboard.press("Space")
    until(page, "document.getElementById('play').textContent === 'Play'")
    page.locator("#transcript .time").nth(2).focus()
    page.keyboard.press("Enter")
    until(page, "document.getElementById('clock').textContent.startsWith('0:03')")
    page.keyboard.press("Tab")
    page.keyboard.type("New words. ")
    page.keyboard.press("Enter")  # no second line
    assert texts(page)[2].startswith("New words.")
    page.focus("#tab-files")
    page.keyboard.press("ArrowRight")
    assert page.locator("#live").is_visible()
    assert page.evaluate("document.activeElement.id") == "tab-live"


def test_everything_can_be_reached_with_tab(page):
    send(page, TALK)
    page.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"tongue", "theme", "choose", "record", "language", "name", "play", "strip", "skip"} <= reached


def test_live_captions_from_the_microphone(page):
    page.click("#tab-live")
    page.click("#listen")
    page.wait_for_selector("#captions p", timeout=20_000)
    assert re.search(r"Tone 4[34]\d hertz", page.locator("#captions p").first.inner_text())
    assert page.locator("#captions small").first.inner_text() == "English"
    page.click("#listen")
    until(page, "document.getElementById('live-state').textContent === 'Stopped.'")
    name, srt = fetched(page, '[data-live="srt"]')
    assert name == "captions.srt"
    assert len(pysubs2.SSAFile.from_string(srt)) >= 1


def test_a_recording_of_the_microphone_is_transcribed(page):
    page.click("#record")
    page.wait_for_selector('#record[aria-pressed="true"]')
    page.wait_for_timeout(3500)
    page.click("#record")
    page.wait_for_selector("#transcript li")
    assert re.search(r"Tone 4[34]\d hertz", " ".join(texts(page)))


def test_a_hostile_name_is_only_a_name(page):
    send(page, tone(440), HOSTILE)
    assert page.locator("#viewer-name").inner_text() == HOSTILE
    assert page.locator("main img").count() == 0
    assert page.title() == "Vermilion"


def test_a_bad_recording_says_why(page):
    page.set_input_files("#file", [{"name": "x.wav", "mimeType": "audio/wav", "buffer": b"nothing"}])
    said = "document.querySelector('#jobs .state')?.textContent"
    until(page, f"{said}?.startsWith('failed: cannot read x.wav')")
    page.click("#jobs .end")
    until(page, "document.querySelectorAll('#jobs li').length === 0")


def test_a_reload_keeps_the_transcripts(page):
    send(page, TALK)
    page.reload()
    page.wait_for_selector("#transcript li")
    assert page.locator("#no-audio").is_visible()
    with page.expect_file_chooser() as chooser:
        page.click("#again")
    chooser.value.set_files([{"name": "talk.wav", "mimeType": "audio/wav", "buffer": wav(TALK)}])
    until(page, "!document.getElementById('play').disabled")
    assert page.locator("#jobs li").count() == 1


def test_corrections_and_recordings_are_there_in_another_tab(page):
    send(page, TALK, "kept.wav")
    page.locator("#transcript .text").nth(1).fill("Corrected.")
    page.reload()
    page.wait_for_selector("#transcript .edited")
    assert texts(page) == ["Tone 300 hertz.", "Corrected.", "Tone 500 hertz."]
    other = page.context.new_page()
    other.goto(page.url)
    other.wait_for_selector("#earlier:not([hidden])")
    assert other.locator("#jobs li").count() == 0
    other.click("#earlier summary")
    other.locator("#earlier-jobs .name", has_text="kept.wav").first.click()
    other.wait_for_selector("#transcript .edited")
    assert texts(other)[1].startswith("Corrected.")
    assert json.loads(fetched(other, '[data-format="json"]')[1])["sentences"][1]["text"] == "Corrected."
    other.locator("#earlier-jobs li", has=other.locator("text=kept.wav")).first.locator(".end").click()
    until(other, "Object.keys(localStorage).filter(k => k.startsWith('edits:')).length === 0")


def test_the_waveform_takes_the_colours_of_the_theme(page):
    send(page, TALK)
    page.wait_for_selector("#play:enabled")
    line = "document.querySelector('#wave > div').shadowRoot.querySelector('.cursor').style.backgroundColor"
    before = page.evaluate(line)
    page.click("#theme")
    until(page, f"{line} !== '{before}'")


def test_in_chinese_and_in_the_dark(page):
    page.click("#tongue")
    assert page.locator("#choose").inner_text() == "选择文件"
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.reload()
    assert page.locator("#choose").inner_text() == "选择文件"
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_can_be_told_apart(page, theme):
    """Contrast of WCAG AA for every pair of text and ground."""
    page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
    pairs = [("--text", "--back"), ("--text", "--card"), ("--quiet", "--card"), ("--quiet", "--back"),
             ("--on", "--accent"), ("--text", "--soft"), ("--low", "--card")]  # fmt: skip
    found = page.evaluate("n => n.map(x => getComputedStyle(document.documentElement).getPropertyValue(x).trim())",
                          sorted({n for p in pairs for n in p}))  # fmt: skip
    colours = dict(zip(sorted({n for p in pairs for n in p}), found, strict=True))
    for a, b in pairs:
        assert contrast(colours[a], colours[b]) >= 4.5, (a, b)


def contrast(a, b):
    def light(colour):
        digits = colour.lstrip("#")
        digits = "".join(d * 2 for d in digits) if len(digits) == 3 else digits
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        r, g, b = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    x, y = sorted((light(a), light(b)))
    return (y + 0.05) / (x + 0.05)


def test_a_key_is_asked_for(browser, tmp_path):
    key = KeyFile(tmp_path / "keys.json").add("me")
    with serving(keys=tmp_path / "keys.json") as url, browser.new_context(locale="en-GB") as context:
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.goto(url)
        page.fill("#key", key)
        page.keyboard.press("Enter")
        send(page, tone(440))
        assert texts(page) == ["Tone 440 hertz."]
        page.click("#tab-live")
        page.click("#listen")
        page.wait_for_selector("#captions p", timeout=20_000)


def test_a_job_is_cancelled(browser):
    with serving(FakeModels(delay=0.2)) as url, browser.new_context(locale="en-GB") as context:
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.goto(url)
        page.set_input_files("#file", [{"name": "l.wav", "mimeType": "audio/wav", "buffer": wav(tone(440, 30))}])
        until(page, "document.querySelector('#jobs .state')?.textContent.startsWith('writing')")
        page.click("#jobs .end")
        until(page, "document.querySelector('#jobs .state').textContent === 'cancelled'")


def test_formats_of_the_page(page):
    def call(name, *arguments):
        return page.evaluate(f"async a => (await import('/page/formats.js')).{name}(...a)", list(arguments))

    assert [call("stamp", ms, ",") for ms in (0, 59_999.6, 3_661_500, 360_000_000)] == [
        "00:00:00,000", "00:01:00,000", "01:01:01,500", "100:00:00,000",
    ]  # fmt: skip
    assert call("wrap", "word " * 20) == ["word word word word word word word word", "word word word word word word word word", "word word word word"]  # fmt: skip  # noqa: E501
    chinese = call("wrap", "今天天气很好，我们去公园散步吧。" * 3)
    assert all(len(line) <= 22 for line in chinese)
    assert "".join(chinese) == "今天天气很好，我们去公园散步吧。" * 3
    assert not any(line.startswith(("，", "。")) for line in chinese)
    long = {"text": "word " * 60, "start_ms": 0, "end_ms": 60_000}
    cues = call("cues", [long])
    assert cues[0]["start"] == 0
    assert cues[-1]["end"] == 60_000
    assert all(a["end"] == b["start"] for a, b in zip(cues, cues[1:], strict=False))
    assert call("cues", [{"text": "", "start_ms": 0, "end_ms": 1}]) == []


def test_what_the_microphone_records_is_a_wav_file(page):
    data = page.evaluate(
        "async () => { const m = await import('/page/microphone.js');"
        "const file = m.wav([new Int16Array([1, -2]), new Int16Array([3])], 48000, 'a.wav');"
        "return [...new Uint8Array(await file.arrayBuffer())]; }"
    )
    with wave.open(io.BytesIO(bytes(data))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (48000, 1, 3)
        assert np.frombuffer(file.readframes(3), "<i2").tolist() == [1, -2, 3]
