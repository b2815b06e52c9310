"""The names and calls that other people's code relies on (ARCHITECTURE, contracts)."""

import numpy as np
import pytest
from tiny import noise, write_aed, write_lid, write_vad

from vermilion.errors import CheckpointError, OptionsError


def test_names_import_as_written():
    from vermilion import Pipeline, PipelineOptions, load
    from vermilion.asr import AedRecognizer, DecodingOptions, LlmRecognizer, WhisperRecognizer
    from vermilion.audio import FeatureExtractor, load_audio
    from vermilion.lid import LanguageIdentifier
    from vermilion.punc import PunctuationRestorer
    from vermilion.vad import (
        EventDetector,
        EventOptions,
        StreamingVadOptions,
        StreamingVoiceActivityDetector,
        VadOptions,
        VoiceActivityDetector,
    )

    names = [Pipeline, PipelineOptions, load, AedRecognizer, WhisperRecognizer, FeatureExtractor, load_audio]
    names += [LanguageIdentifier, PunctuationRestorer, EventDetector, EventOptions, StreamingVadOptions, VadOptions]
    names += [StreamingVoiceActivityDetector, VoiceActivityDetector]
    assert all(callable(n) for n in names)
    full = DecodingOptions(
        beam_size=3, nbest=1, max_tokens=0, softmax_smoothing=1.25, length_penalty=0.6, eos_penalty=1.0, timestamps=True
    )
    assert full == DecodingOptions()
    with pytest.raises(CheckpointError, match="no model folder"):
        LlmRecognizer.from_pretrained("folder")


HEARD = {"on_music": "keep", "on_singing": "keep", "on_noise": "keep"}
"""random networks hear music and doubt their own text"""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("pretrained_models")
    write_vad(root / "FireRedVAD/VAD")
    write_vad(root / "FireRedVAD/AED", outputs=3)
    write_lid(root / "FireRedLID")
    write_aed(root / "FireRedASR2-AED")
    return root


def test_a_folder_in_the_published_layout_becomes_a_pipeline(models, tmp_path):
    from vermilion import PipelineOptions, load
    from vermilion.transcript import Transcript
    from vermilion.vad import VadOptions

    vad = VadOptions(speech_threshold=0.0)
    pipeline = load(models, options=PipelineOptions(route="never", punctuation=False, **HEARD), vad=vad)
    t = pipeline.transcribe((noise(3.0), 16000))
    assert isinstance(t, Transcript)
    assert [(s.start, s.end) for s in t.segments] == [(0.0, 3.0)]
    assert t.models["asr"] == "FireRedASR2-AED"
    assert t.languages
    assert t.save(tmp_path / "t.json").exists()
    again = list(pipeline.transcribe_many([(noise(3.0), 16000), (np.zeros(0, np.float32), 16000)]))
    assert again[0].text == t.text
    assert again[1].text == ""


def test_long_recordings_through_the_real_modules(models):
    """Longer than the spooling limit and than one window of the pipeline."""
    from vermilion import PipelineOptions, load
    from vermilion.vad import VadOptions

    vad = VadOptions(speech_threshold=0.0, max_speech_frame=1000)
    options = PipelineOptions(lid=False, punctuation=False, events=False, window_seconds=60)
    pipeline = load(models, options=options, vad=vad)
    t = pipeline.transcribe((np.tile(noise(30.0), 21), 16000))
    assert t.duration == 630.0
    assert sum(s.duration for s in t.segments) == pytest.approx(630.0, abs=0.01)
    assert t.failures == []


def test_unknown_names_and_missing_models_are_typed(models, tmp_path):
    from vermilion import PipelineOptions, load

    with pytest.raises(CheckpointError, match="neither a model folder"):
        load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="FireRedASR2-LLM is not present"):
        load(models, options=PipelineOptions(recognizer="llm"))
    with pytest.raises(OptionsError, match="contradict"):
        load("starter", options=PipelineOptions(recognizer="aed"))
