"""File names that recordings go by: the suffixes of every format that the reader opens."""

from __future__ import annotations

from functools import cache

from vermilion.audio.ffmpeg import FORMATS

_OTHER = {
    "aac": "aac adts",
    "ac3": "ac3",
    "amr": "amr awb",
    "asf": "asf wma wmv",
    "avi": "avi divx",
    "dts": "dts",
    "eac3": "eac3 ec3",
    "flv": "flv f4v",
    "g722": "g722",
    "matroska,webm": "mkv mka webm weba",
    "mov,mp4,m4a,3gp,3g2,mj2": "mov qt mp4 m4a m4b m4v m4r 3gp 3g2 f4v f4a aax",
    "mp3": "mp3 mp2 mpga",
    "mpeg": "mpg mpeg vob",
    "mpegts": "ts mts m2ts m2t",
    "mxf": "mxf",
    "nistsphere": "nist sph",
    "ogg": "ogg oga ogv opus spx",
    "rm": "rm ra rmvb",
    "loas": "latm loas",
    "gsm": "gsm",
    "wav": "wav wave",
    "aiff": "aif aiff aifc",
    "au": "au snd",
    "w64": "w64",
    "caf": "caf",
    "voc": "voc",
    "sbc": "sbc msbc",
    "dss": "dss ds2",
    "wtv": "wtv",
}
"""formats → suffixes that FFmpeg does not list for its readers"""
_SOUND_FILE = "wav wave aif aiff aifc au snd flac caf w64 rf64 bwf"
_NOT_SOUND = frozenset(["avif", "heic", "heif", "mcc", "mks", "psp", "ism", "bin", "dat", "txt", "xml", "json", "str"])
"""pictures, subtitles, and names that anything goes by"""


@cache
def suffixes() -> frozenset[str]:
    """All of them in small letters, with their point."""
    import av

    found = set(_SOUND_FILE.split())
    for name in FORMATS.split():
        found.update(_OTHER.get(name, "").split())
        try:
            found.update(av.format.ContainerFormat(name.split(",")[0], "r").extensions)
        except ValueError:  # this build of FFmpeg lacks it
            continue
    return frozenset(f".{suffix.lower()}" for suffix in found - _NOT_SOUND if suffix)
