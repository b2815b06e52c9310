"""What people write for a language, and options with a closed set of values."""

import pytest

from vermilion import PipelineOptions
from vermilion.choices import check_choice, check_device
from vermilion.decoding.options import DecodingOptions
from vermilion.errors import OptionsError, UnsupportedLanguageError
from vermilion.evaluation.languages import canonical as evaluated
from vermilion.languages import (
    DIALECTS,
    LANGUAGES,
    WHISPER_CODES,
    canonical,
    fireredlid_label,
    known_language,
    name_of,
    whisper_code,
)
from vermilion.server.languages import NAMES, code_of

SPELLINGS = {
    "en": ["EN", "English", "en-US", "en_GB", "eng", "english ", "en_US.UTF-8"],
    "zh": ["zh-CN", "Chinese", "cmn", "zho", "chi", "zh_Hans_CN", "zh-TW", "中文", "汉语"],
    "zh yue": ["yue", "Cantonese", "zh-yue", "yue-Hant-HK", "Chinese (Cantonese)", "ZH yue", "粵語"],
    "zh mandarin": ["Mandarin", "zh mandarin", "putonghua", "普通话"],
    "zh min": ["nan", "Hokkien", "zh-min-nan"],
    "zh bo": ["bo", "Tibetan", "bod"],
    "iw": ["he", "iw", "heb", "Hebrew", "he-IL"],
    "jw": ["jv", "jw", "jav", "Javanese"],
    "tl": ["fil", "tl", "Filipino", "Tagalog"],
    "no": ["nb", "nob", "no", "nb-NO", "Norwegian"],
    "de": ["ger", "deu", "German", "Deutsch", "de_AT@euro"],
    "fr": ["fra", "fre", "Français", "法语", "FRENCH"],
    "my": ["Burmese", "Myanmar", "mya"],
    "ht": ["Haitian Creole", "haitian-creole", "haitian_creole"],
    "ja": ["日本語", "Japanese", "jpn", "ja-JP"],
    "sr": ["sr-Latn-RS", "sr_RS@latin", "Serbian"],
}


@pytest.mark.parametrize("label", SPELLINGS)
def test_every_spelling_is_one_label_at_every_entrance(label):
    for spelling in SPELLINGS[label]:
        assert canonical(spelling) == label, spelling
        assert PipelineOptions(language=spelling).language == label
        assert code_of(spelling, None) == label
        assert fireredlid_label(spelling) == label
        assert evaluated(spelling) == label


@pytest.mark.parametrize("wrong", ["klingon", "xx", "", "  ", "en yue", "zh klingon", "e", "123", "fr en x", "\ud800"])
def test_anything_else_is_refused(wrong):
    with pytest.raises(UnsupportedLanguageError, match="no language that is known here"):
        PipelineOptions(language=wrong)
    assert fireredlid_label(wrong) is None


def test_the_nearest_codes_are_named():
    for wrong, near in {"Frensh": "fr (French)", "englsh": "en (English)", "Cantonees": "zh yue"}.items():
        with pytest.raises(UnsupportedLanguageError, match="did you mean") as refused:
            canonical(wrong)
        assert near in str(refused.value)


def test_left_to_the_identification():
    assert PipelineOptions(language="auto").language is None
    assert PipelineOptions().language is None
    assert known_language(None) is None
    assert code_of("", ["en"]) is code_of("AUTO", ["en"]) is code_of(None, ["en"]) is None


def test_a_server_takes_what_its_recogniser_covers():
    assert code_of("Cantonese", ["en", "zh"]) == "zh yue"
    with pytest.raises(UnsupportedLanguageError, match="does not recognise"):
        code_of("French", ["en", "zh"])


def test_whisper_has_codes_of_its_own():
    own = {"iw": "he", "zh bo": "bo", "Cantonese": "zh", "in": "id", "Javanese": "jw", "ceb": None, "klingon": None}
    assert {value: whisper_code(value) for value in own} == own
    assert len(WHISPER_CODES) == 99
    assert all(whisper_code(code) == code for code in WHISPER_CODES)


def test_the_table_says_every_name_once():
    for code, names in {**LANGUAGES, **{f"zh {d}": n for d, n in DIALECTS.items()}}.items():
        for spelling in (*names.codes, *names.english, names.chinese, *names.own):
            assert canonical(spelling) == ("zh" if spelling == "cmn" else code), spelling
    assert name_of("zh yue") == "Chinese (Cantonese (Yue))"
    assert name_of("tlh") == "tlh"
    assert NAMES["my"] == "myanmar"
    assert NAMES["yue"] == "cantonese"


def test_other_closed_sets_name_the_nearest_value():
    for wrong, near in (
        ({"precision": "bf16loat"}, "bfloat16"),
        ({"channels": "seperate"}, "separate"),
        ({"recognizer": "wisper"}, "whisper"),
        ({"route": "nevr"}, "never"),
        ({"device": "cdua:0"}, "cuda"),
    ):
        with pytest.raises(OptionsError, match=f"did you mean '{near}'"):
            PipelineOptions(**wrong)
    with pytest.raises(OptionsError, match="did you mean 'greedy'"):
        DecodingOptions(search="greedyy")
    with pytest.raises(OptionsError, match="must be one of a, b, not 'q'$"):
        check_choice("x", "q", ("a", "b"))
    for device in ("cpu", "cuda", "cuda:1", "mps"):
        check_device(device)
    for device in ("", "cuda:", "cuda:x", "gpu 1"):
        with pytest.raises(OptionsError, match="device must be one of"):
            check_device(device)
