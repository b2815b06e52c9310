"""Music, noise, singing and some acted human phrases out of Debian's packages, as 16 kHz mono FLAC with manifests.

    apt-get download hedgewars-data fillets-ng-data wesnoth-1.16-data sonic-pi-samples
    python recipes/mini/sounds.py --packages debs --out data/sounds

Writes music.jsonl, noise.jsonl, singing.jsonl, phrases.jsonl, with the package and file of every row. What
benchmarks/real tests with is left out: the music of Wesnoth, Warzone and Asterisk, some noises, all its speech.
singing.jsonl is the only real singing there is and a test set: nothing is trained on it.
"""

import argparse
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from vermilion.audio import load_audio
from vermilion.errors import AudioError
from vermilion.manifests import Utterance, write_manifest

VOCAL = re.compile(r"die|hit|cry|laugh|scream|human|orc|troll|ogre|goblin|wail|grunt|hiss|voice|speech|choir|vocal")
TESTED = re.compile(
    r"blowtorch|drillgun|flamethrower|landgun|minigun|molotov|mortar|plane|rcplane|rubberduck_water|sinegun|steam|steps|"
    r"beewater|cake2|explosion|hammer|pickhammer|splash|ropeshot|shotgunfire|frozen_hog_impact|ufo|birds[123]|campfire|"
    r"morning|night|ship|cave-in|rumble|fuse|lightning|thunderstick|gold|dragonstick|axe|club|mace|sword-1|torch|melee-fire"
)
"""sounds that benchmarks/real tests with"""
ACTORS = "British|Default|Default_es|Default_pl|HillBilly|Mobster|Pirate|Russian|Surfer"
SOURCES = {
    # class: package, pattern of the file's path
    "music": [
        ("hedgewars-data", r"/Data/Music/.*\.ogg$"),
        ("fillets-ng-data_", r"/fillets-ng/music/.*\.ogg$"),
        ("sonic-pi-samples", r"/samples/(loop|ambi|guit|bass)_.*\.flac$"),
    ],
    "noise": [
        ("wesnoth-1.16-data", r"/core/sounds/.*\.(ogg|wav)$"),
        ("hedgewars-data", r"/Data/Sounds/[^/]*\.ogg$"),
        ("sonic-pi-samples", r"/samples/(misc|vinyl|mehackit|perc|glitch)_.*\.flac$"),
    ],
    "singing": [("hedgewars-data", r"/Sounds/voices/Singer/.*\.ogg$")],
    "phrases": [("hedgewars-data", rf"/Sounds/voices/({ACTORS})/.*\.ogg$")],
}  # fmt: skip


def files_of(package: Path, pattern: str, folder: Path) -> Iterator[Path]:
    if not folder.exists():
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    yield from (p for p in sorted(folder.rglob("*")) if p.is_file() and re.search(pattern, "/" + str(p)))


def converted(kind: str, source: Path, package: str, out: Path) -> Utterance | None:
    if kind == "noise" and (VOCAL.search(source.name) or TESTED.fullmatch(source.stem)):
        return None
    try:
        samples = load_audio(source)
    except AudioError as error:
        print("left out:", error)
        return None
    peak = float(np.abs(samples).max(initial=0.0))
    if samples.size < 1600 or peak < 0.005:
        return None
    path = out / kind / package / f"{source.parent.name}-{source.stem}.flac"
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples / max(1.0, peak), 16000, subtype="PCM_16")
    name = f"{package}-{source.parent.name}-{source.stem}"
    return Utterance(name, str(path), 0.0, samples.size / 16000, extra={"source": f"{package}: {source.name}"})


def main() -> None:
    """Convert everything; a second run does it anew."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--packages", type=Path, required=True)
    arguments.add_argument("--out", type=Path, required=True)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as unpacked:
        for kind, sources in SOURCES.items():
            rows = []
            for prefix, pattern in sources:
                package = next(given.packages.glob(prefix + "*.deb"))
                for file in files_of(package, pattern, Path(unpacked) / package.stem):
                    row = converted(kind, file, prefix.rstrip("_"), given.out)
                    rows += [row] if row else []
            write_manifest(given.out / f"{kind}.jsonl", rows)
            print(f"{kind}: {len(rows)} files, {sum(r.duration or 0 for r in rows) / 60:.1f} min")


if __name__ == "__main__":
    main()
