"""Language identification: accuracy, confusions, and how the labels of test sets become those of the model.

FLEURS-82 and the aliases are the report's (section 4.2); a configuration that the model has no label for is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from vermilion.languages import lenient
from vermilion.lid.labels import DIALECTS, LANGUAGES

Level = Literal["language", "dialect", "full"]
"""language = "zh yue" counts as "zh"; dialect = a Chinese label counts as its group, any other as its language;
full = both words of the label"""
NOTHING = "(none)"
"""how confusions name a recording that got no label"""
_FLEURS = """
af_za am_et ar_eg as_in ast_es az_az be_by bg_bg bn_in bs_ba ca_es ceb_ph ckb_iq cmn_hans_cn cs_cz cy_gb da_dk de_de
el_gr en_us es_419 et_ee fa_ir ff_sn fi_fi fil_ph fr_fr ga_ie gl_es gu_in ha_ng he_il hi_in hr_hr hu_hu hy_am id_id
ig_ng is_is it_it ja_jp jv_id ka_ge kam_ke kea_cv kk_kz km_kh kn_in ko_kr ky_kg lb_lu lg_ug ln_cd lo_la lt_lt luo_ke
lv_lv mi_nz mk_mk ml_in mn_mn mr_in ms_my mt_mt my_mm nb_no ne_np nl_nl nso_za ny_mw oc_fr om_et or_in pa_in pl_pl
ps_af pt_br ro_ro ru_ru sd_in sk_sk sl_si sn_zw so_so sr_rs sv_se sw_ke ta_in te_in tg_tj th_th tr_tr uk_ua umb_ao
ur_pk uz_uz vi_vn wo_sn xh_za yo_ng yue_hant_hk zu_za
"""
FLEURS_CONFIGURATIONS = tuple(_FLEURS.split())
"""the 102 of the data set"""
_NOT_IN_82 = "ast ckb ff ga ig kam kea ky lg luo nso ny om or umb wo xh zu ceb yue"
_NOT_IN_FLEURS_82 = frozenset(_NOT_IN_82.split())
_NOT_IN_COMMON_VOICE = frozenset({"zh-HK", "yue", "nan", "nan-tw", "nan-TW"})
"""Chinese that is no standard Mandarin: a question of dialects, which this set does not ask"""
DIALECT_GROUPS = MappingProxyType(
    {
        "mandarin": "mandarin", "standard": "mandarin", "putonghua": "mandarin",
        "beijing": "north", "northeastern": "north", "zhongyuan": "north", "jilu": "north", "jiaoliao": "north",
        "lanyin": "north", "jianghuai": "north",
        "southwestern": "xinan", "chuan": "xinan", "sichuan": "xinan",
        "cantonese": "yue", "wuyu": "wu", "shanghai": "wu", "minnan": "min", "hokkien": "min", "hunan": "xiang",
        "tibetan": "bo",
    }
)  # fmt: skip
"""names of dialects in test sets (KeSpeech's subdialects, WenetSpeech's parts), letters only → the model's groups"""


@dataclass(frozen=True)
class LanguageScore:
    """Identified against true labels."""

    confusions: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(true, identified) → recordings"""

    @property
    def total(self) -> int:
        """Recordings."""
        return sum(self.confusions.values())

    @property
    def correct(self) -> int:
        """Recordings with the right label."""
        return sum(n for (true, got), n in self.confusions.items() if true == got)

    @property
    def accuracy(self) -> float:
        """Share of the recordings with the right label (0 for an empty set)."""
        return self.correct / self.total if self.total else 0.0

    @property
    def labels(self) -> list[str]:
        """Every label that was true or identified, in order."""
        return sorted({label for pair in self.confusions for label in pair})

    @property
    def by_label(self) -> dict[str, float]:
        """Accuracy of each true label."""
        totals: Counter[str] = Counter()
        for (true, _), n in self.confusions.items():
            totals[true] += n
        return {label: self.confusions.get((label, label), 0) / n for label, n in sorted(totals.items())}

    @property
    def macro_accuracy(self) -> float:
        """Mean over the true labels, each with the same weight."""
        shares = self.by_label.values()
        return sum(shares) / len(shares) if shares else 0.0

    def matrix(self, labels: Sequence[str] | None = None) -> list[list[int]]:
        """Counts, a row per true label and a column per identified one."""
        names = self.labels if labels is None else labels
        return [[self.confusions.get((true, got), 0) for got in names] for true in names]

    def worst(self, limit: int = 10) -> list[tuple[str, str, int]]:
        """The most frequent confusions: true, identified, recordings."""
        wrong = [(true, got, n) for (true, got), n in self.confusions.items() if true != got]
        return sorted(wrong, key=lambda row: (-row[2], row[:2]))[:limit]


def score(pairs: Iterable[tuple[str, str | None]], level: Level = "language") -> LanguageScore:
    """Count labels.

    Args:
        pairs: (true, identified); None or "" = nothing was identified, which is wrong.
        level: what of the labels has to agree.
    """
    counted = Counter((reduced(true, level), reduced(got, level) if got else NOTHING) for true, got in pairs)
    return LanguageScore(dict(counted))


def canonical(label: str) -> str:
    """A label in the model's codes (`vermilion.languages.canonical`); one that is not known stays, in lower case.

    Args:
        label: "en", "en-US", "cmn", "zh yue", "yue", "he".
    """
    return lenient(label) or label.strip().lower()


def reduced(label: str, level: Level) -> str:
    """The part of a label that counts at a level."""
    language, _, dialect = canonical(label).partition(" ")
    if level == "language" or not dialect:
        return language
    return dialect if level == "dialect" else f"{language} {dialect}"


def fleurs_language(configuration: str) -> str | None:
    """The model's code of a FLEURS configuration ("cmn_hans_cn" → "zh"); None if FLEURS-82 leaves it out."""
    code = configuration.partition("_")[0]
    known = configuration in FLEURS_CONFIGURATIONS and code not in _NOT_IN_FLEURS_82
    return lenient(code) if known else None


def common_voice_language(locale: str) -> str | None:
    """The model's code of a CommonVoice locale ("sv-SE" → "sv"); None if the model has no label for it."""
    code = canonical(locale)
    return code if code in LANGUAGES and locale not in _NOT_IN_COMMON_VOICE else None


def dialect_label(name: str) -> str | None:
    """The model's label of a named Chinese dialect ("Ji-Lu" → "zh north", "yue" → "zh yue"); None if unknown.

    The seven branches of Mandarin other than the south-western one are taken for the group "north"; the report names
    its groups but does not list what is in them.
    """
    letters = "".join(c for c in name.lower() if c.isalpha()).removesuffix("mandarin") or "mandarin"
    group = DIALECT_GROUPS.get(letters, letters)
    return f"zh {group}" if group in DIALECTS else None
