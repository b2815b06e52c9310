"""Labels of test sets, accuracies, confusions."""

import pytest
from sklearn import metrics

from vermilion.evaluation.languages import (
    FLEURS_CONFIGURATIONS,
    NOTHING,
    canonical,
    common_voice_language,
    dialect_label,
    fleurs_language,
    score,
)
from vermilion.lid.labels import DIALECTS, LANGUAGES


def test_fleurs_82():
    kept = [fleurs_language(c) for c in FLEURS_CONFIGURATIONS]
    found = [c for c in kept if c]
    assert len(FLEURS_CONFIGURATIONS) == len(set(FLEURS_CONFIGURATIONS)) == 102
    assert len(found) == len(set(found)) == 82
    assert set(found) <= set(LANGUAGES)
    pairs = {"cmn_hans_cn": "zh", "fil_ph": "tl", "he_il": "iw", "jv_id": "jw", "nb_no": "no", "es_419": "es"}
    assert {c: fleurs_language(c) for c in pairs} == pairs
    assert [fleurs_language(c) for c in ("yue_hant_hk", "ceb_ph", "ast_es", "en_gb")] == [None] * 4


def test_common_voice_and_dialects():
    assert [common_voice_language(x) for x in ("zh-CN", "sv-SE", "he", "nn-NO", "hy-AM")] == [
        "zh",
        "sv",
        "iw",
        "nn",
        "hy",
    ]
    assert [common_voice_language(x) for x in ("zh-HK", "yue", "rm-sursilv", "ga-IE")] == [None] * 4
    names = {"Ji-Lu Mandarin": "zh north", "Southwestern": "zh xinan", "Mandarin": "zh mandarin", "Yue": "zh yue"}
    assert {n: dialect_label(n) for n in names} == names
    assert dialect_label("Klingon") is None
    assert {dialect_label(d) for d in DIALECTS} == {f"zh {d}" for d in DIALECTS}


def test_labels_in_the_codes_of_the_model():
    labels = {"he": "iw", "en-US": "en", "yue": "zh yue", "ZH yue": "zh yue", "cmn": "zh", "zh_CN": "zh", "bo": "zh bo"}
    assert {label: canonical(label) for label in labels} == labels


def test_accuracy_equals_scikit_learn():
    true = ["en", "en", "zh", "fr", "zh", "fr"]
    got = ["en", "fr", "zh", "fr", "en", "fr"]
    found = score(zip(true, got, strict=True))
    assert found.accuracy == pytest.approx(metrics.accuracy_score(true, got))
    assert found.macro_accuracy == pytest.approx(metrics.balanced_accuracy_score(true, got))
    assert found.matrix() == metrics.confusion_matrix(true, got).tolist()
    assert found.worst() == [("en", "fr", 1), ("zh", "en", 1)]


@pytest.mark.parametrize(("level", "correct"), [("language", 3), ("dialect", 2), ("full", 2)])
def test_levels(level, correct):
    found = score([("zh yue", "zh yue"), ("zh yue", "zh wu"), ("en", "en"), ("en", None)], level)
    assert (found.correct, found.total) == (correct, 4)
    assert NOTHING in found.labels
    assert score([]).accuracy == score([]).macro_accuracy == 0.0
