"""Audio in: any recording → 16 kHz mono samples → log-Mel features (SPEC section 1)."""

from vermilion.audio.cuts import quiet_cuts, quietest
from vermilion.audio.features import SAMPLE_RATE, FeatureExtractor, StreamingFeatureExtractor, num_frames
from vermilion.audio.opening import load_audio, load_channels, open_recordings
from vermilion.audio.reading import iter_blocks
from vermilion.audio.recording import Recording
from vermilion.audio.source import AudioInput, describe

__all__ = [
    "SAMPLE_RATE",
    "AudioInput",
    "FeatureExtractor",
    "Recording",
    "StreamingFeatureExtractor",
    "describe",
    "iter_blocks",
    "load_audio",
    "load_channels",
    "num_frames",
    "open_recordings",
    "quiet_cuts",
    "quietest",
]
