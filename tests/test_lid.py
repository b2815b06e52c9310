"""Language identification: labels, order, failures in place, batch mates."""

import pytest
from tiny import noise, write_lid

from vermilion.errors import AudioError, CheckpointError
from vermilion.lid import DIALECTS, LANGUAGES, PAPER_LANGUAGES, LanguageIdentifier, language_name
from vermilion.transcript import Failure, LanguageResult


@pytest.fixture(scope="module")
def identifier(tmp_path_factory):
    return LanguageIdentifier.from_pretrained(write_lid(tmp_path_factory.mktemp("lid")))


def test_the_labels_of_the_report():
    assert (len(LANGUAGES), len(PAPER_LANGUAGES), len(DIALECTS)) == (106, 96, 8)
    assert language_name("fr") == "French"
    assert language_name("zh yue", "zh") == "中文 (粤语)"
    assert language_name("xx") == "xx"


def test_one_entry_per_recording_in_order(identifier, tmp_path):
    sources = [(noise(1.0, 1), 16000), tmp_path / "missing.wav", (noise(0.01), 16000), (noise(2.5, 2), 16000)]
    results = identifier.identify(sources)
    assert isinstance(results[1], Failure)
    assert isinstance(results[1].error, AudioError)
    assert results[2] == LanguageResult("", None, 0.0)
    for i in (0, 3):
        alone = identifier.identify([sources[i]])[0]
        assert alone.label == results[i].label
        assert alone.confidence == pytest.approx(results[i].confidence, abs=1e-4)
    assert identifier.identify([]) == []


def test_labels_come_from_the_dictionary(identifier):
    assert identifier.languages == ["zh", "en", "fr"]
    assert identifier.dialects == ["mandarin", "yue"]
    result = identifier.identify([(noise(1.0), 16000)], nbest=3)[0]
    assert len(result.alternatives) == 3
    assert result.label == result.alternatives[0].label


def test_205_seconds_are_heard(identifier):
    assert identifier.identify([(noise(205.0), 16000)])[0].language


def test_a_dictionary_of_the_wrong_size_is_refused(tmp_path):
    folder = write_lid(tmp_path)
    (folder / "dict.txt").write_text("zh 0\nen 1\n")
    with pytest.raises(CheckpointError, match=r"dict\.txt"):
        LanguageIdentifier.from_pretrained(folder)
