"""Languages: one table of codes and names, and the one parser of what people write for a language."""

from __future__ import annotations

import difflib
import re
import unicodedata
from functools import lru_cache
from types import MappingProxyType
from typing import Literal, NamedTuple

from vermilion.errors import UnsupportedLanguageError

Locale = Literal["en", "zh"]

# code; other codes (ISO 639-1, -2, -3, older ones, Whisper's); English names; Chinese name; its own name
_FIREREDLID = """
zh;zho chi cmn;Chinese;中文;汉语,漢語,华语
en;eng;English;英语;
es;spa;Spanish,Castilian;西班牙语;Español
fr;fra fre;French;法语;Français
ja;jpn;Japanese;日语;日本語
ko;kor;Korean;韩语;한국어
ru;rus;Russian;俄语;Русский
de;deu ger;German;德语;Deutsch
pt;por;Portuguese;葡萄牙语;Português
ab;abk;Abkhazian,Abkhaz;阿布哈兹语;Аԥсуа
af;afr;Afrikaans;南非荷兰语;
am;amh;Amharic;阿姆哈拉语;አማርኛ
ar;ara arb;Arabic;阿拉伯语;العربية
as;asm;Assamese;阿萨姆语;অসমীয়া
az;aze;Azerbaijani;阿塞拜疆语;Azərbaycan
ba;bak;Bashkir;巴什基尔语;Башҡорт
be;bel;Belarusian;白俄罗斯语;Беларуская
bg;bul;Bulgarian;保加利亚语;Български
bn;ben;Bengali,Bangla;孟加拉语;বাংলা
br;bre;Breton;布列塔尼语;Brezhoneg
bs;bos;Bosnian;波斯尼亚语;Bosanski
ca;cat;Catalan,Valencian;加泰罗尼亚语;Català
ceb;;Cebuano;宿务语;
cs;ces cze;Czech;捷克语;Čeština
cy;cym wel;Welsh;威尔士语;Cymraeg
da;dan;Danish;丹麦语;Dansk
el;ell gre;Greek;希腊语;Ελληνικά
eo;epo;Esperanto;世界语;
et;est;Estonian;爱沙尼亚语;Eesti
eu;eus baq;Basque;巴斯克语;Euskara
fa;fas per;Persian,Farsi;波斯语;فارسی
fi;fin;Finnish;芬兰语;Suomi
fo;fao;Faroese;法罗语;Føroyskt
gl;glg;Galician;加利西亚语;Galego
gn;grn;Guarani;瓜拉尼语;Avañe'ẽ
gu;guj;Gujarati;古吉拉特语;ગુજરાતી
gv;glv;Manx;马恩语;Gaelg
ha;hau;Hausa;豪萨语;
haw;;Hawaiian;夏威夷语;ʻŌlelo Hawaiʻi
hi;hin;Hindi;印地语;हिन्दी
hr;hrv;Croatian;克罗地亚语;Hrvatski
ht;hat;Haitian Creole,Haitian;海地克里奥尔语;Kreyòl Ayisyen
hu;hun;Hungarian;匈牙利语;Magyar
hy;hye arm;Armenian;亚美尼亚语;Հայերեն
ia;ina;Interlingua;国际语;
id;ind in;Indonesian;印度尼西亚语;Bahasa Indonesia
is;isl ice;Icelandic;冰岛语;Íslenska
it;ita;Italian;意大利语;Italiano
iw;he heb;Hebrew;希伯来语;עברית
jw;jv jav;Javanese;爪哇语;Basa Jawa
ka;kat geo;Georgian;格鲁吉亚语;ქართული
kk;kaz;Kazakh;哈萨克语;Қазақ
km;khm;Khmer,Cambodian;高棉语;ខ្មែរ
kn;kan;Kannada;卡纳达语;ಕನ್ನಡ
la;lat;Latin;拉丁语;Latina
lb;ltz;Luxembourgish,Letzeburgesch;卢森堡语;Lëtzebuergesch
ln;lin;Lingala;林加拉语;
lo;lao;Lao,Laotian;老挝语;ລາວ
lt;lit;Lithuanian;立陶宛语;Lietuvių
lv;lav lvs;Latvian;拉脱维亚语;Latviešu
mg;mlg;Malagasy;马尔加什语;
mi;mri mao;Maori;毛利语;Te Reo Māori
mk;mkd mac;Macedonian;马其顿语;Македонски
ml;mal;Malayalam;马拉雅拉姆语;മലയാളം
mn;mon khk;Mongolian;蒙古语;Монгол
mr;mar;Marathi;马拉地语;मराठी
ms;msa may zsm;Malay;马来语;Bahasa Melayu
mt;mlt;Maltese;马耳他语;Malti
my;mya bur;Burmese,Myanmar;缅甸语;မြန်မာ
ne;nep npi;Nepali;尼泊尔语;नेपाली
nl;nld dut;Dutch,Flemish;荷兰语;Nederlands
nn;nno;Norwegian Nynorsk,Nynorsk;新挪威语;
no;nor nb nob;Norwegian,Norwegian Bokmål,Bokmål;挪威语;Norsk
oc;oci;Occitan;奥克语;
pa;pan;Punjabi,Panjabi;旁遮普语;ਪੰਜਾਬੀ
pl;pol;Polish;波兰语;Polski
ps;pus pbt;Pashto,Pushto;普什图语;پښتو
ro;ron rum mo mol;Romanian,Moldavian,Moldovan;罗马尼亚语;Română
sa;san;Sanskrit;梵语;संस्कृतम्
sco;;Scots;苏格兰语;
sd;snd;Sindhi;信德语;سنڌي
si;sin;Sinhala,Sinhalese;僧伽罗语;සිංහල
sk;slk slo;Slovak;斯洛伐克语;Slovenčina
sl;slv;Slovenian,Slovene;斯洛文尼亚语;Slovenščina
sn;sna;Shona;绍纳语;
so;som;Somali;索马里语;Soomaali
sq;sqi alb als;Albanian;阿尔巴尼亚语;Shqip
sr;srp;Serbian;塞尔维亚语;Српски,Srpski
su;sun;Sundanese;巽他语;Basa Sunda
sv;swe;Swedish;瑞典语;Svenska
sw;swa swh;Swahili;斯瓦希里语;Kiswahili
ta;tam;Tamil;泰米尔语;தமிழ்
te;tel;Telugu;泰卢固语;తెలుగు
tg;tgk;Tajik;塔吉克语;Тоҷикӣ
th;tha;Thai;泰语;ไทย,ภาษาไทย
tk;tuk;Turkmen;土库曼语;Türkmen
tl;tgl fil;Tagalog,Filipino,Pilipino;他加禄语;Wikang Tagalog
tr;tur;Turkish;土耳其语;Türkçe
tt;tat;Tatar;鞑靼语;Татар
uk;ukr;Ukrainian;乌克兰语;Українська
ur;urd;Urdu;乌尔都语;اردو
uz;uzb uzn;Uzbek;乌兹别克语;Oʻzbek
vi;vie;Vietnamese;越南语;Tiếng Việt
war;;Waray;瓦瑞语;Winaray
yi;yid ji ydd;Yiddish;意第绪语;ייִדיש
yo;yor;Yoruba;约鲁巴语;Yorùbá
"""
_FURTHER = """
ast;;Asturian;阿斯图里亚斯语;Asturianu
ckb;;Central Kurdish,Sorani;中库尔德语;
ff;ful;Fulah,Fula;富拉语;
ga;gle;Irish;爱尔兰语;Gaeilge
ig;ibo;Igbo;伊博语;
ku;kur kmr;Kurdish;库尔德语;Kurdî
ky;kir;Kyrgyz,Kirghiz;吉尔吉斯语;Кыргызча
or;ori ory;Odia,Oriya;奥里亚语;ଓଡ଼ିଆ
ug;uig;Uyghur,Uighur;维吾尔语;ئۇيغۇرچە
wo;wol;Wolof;沃洛夫语;
xh;xho;Xhosa;科萨语;isiXhosa
zu;zul;Zulu;祖鲁语;isiZulu
"""
_DIALECTS = """
mandarin;;Mandarin,Mandarin Chinese,Putonghua,Standard Chinese;官话;普通话,普通話,国语,國語
yue;;Cantonese (Yue),Cantonese,Yue Chinese;粤语;粵語,广东话,廣東話
wu;wuu;Wu,Wu Chinese,Shanghainese;吴语;吳語,上海话
min;nan mnp cdo;Min,Min Chinese,Min Nan,Hokkien,Taiwanese;闽语;闽南语,閩南語,台語
north;;Northern Mandarin;北方官话;
xinan;;Southwestern Mandarin,Sichuanese;西南官话;四川话
xiang;hsn;Xiang,Xiang Chinese,Hunanese;湘语;湘語
bo;bod tib;Tibetan;藏语;བོད་སྐད་
"""
_WHISPER = (
    "af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he hi hr ht hu hy id "
    "is it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no oc pa pl ps pt ro ru sa sd si "
    "sk sl sn so sq sr su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo zh"
)
WHISPER_CODES = frozenset(_WHISPER.split())
"""what Whisper calls the 99 languages that every size of it knows (Radford et al. 2022)"""
AUTO = "auto"
"""what people write for "identify it" """
_SPELLINGS = 3
"""suggestions of an error"""
_TAG = re.compile(r"([a-z]{2,3})(?:[-_][a-z0-9]{1,8})*(?:[.@][-a-z0-9_.@]*)?")
"""en-US, zh_Hans_CN, en_US.UTF-8, sr_RS@latin"""


class Names(NamedTuple):
    """What a language or dialect group is called."""

    english: tuple[str, ...]
    """the first is its label's"""
    chinese: str
    codes: tuple[str, ...] = ()
    """others than its own"""
    own: tuple[str, ...] = ()
    """in the language itself"""


def _parse(table: str) -> MappingProxyType[str, Names]:
    rows = (line.split(";") for line in table.strip().splitlines())
    return MappingProxyType(
        {
            code: Names(tuple(english.split(",")), chinese, tuple(codes.split()), tuple(own.split(",")) if own else ())
            for code, codes, english, chinese, own in rows
        }
    )


FIREREDLID = _parse(_FIREREDLID)
"""the languages of FireRedLID by its codes (report, Appendix B)"""
DIALECTS = _parse(_DIALECTS)
"""the Chinese dialect groups of FireRedLID by its codes: the second word of a label such as "zh yue" """
LANGUAGES = MappingProxyType({**FIREREDLID, **_parse(_FURTHER)})
"""all that can be named: FireRedLID's, and others that test sets or servers know"""


def canonical(value: str) -> str:
    """Read a language as people write it.

    Args:
        value: a code of ISO 639-1, -2 or -3, of FireRedLID or Whisper, a tag with a region ("en-US", "zh_Hans_CN"), a
            name ("English", "Cantonese", "Deutsch", "法语"), or a code with a Chinese dialect group ("zh yue").

    Returns:
        FireRedLID's label, "en" or "zh yue"; ISO 639's code where it has none.

    Raises:
        UnsupportedLanguageError: it is none; the message names the nearest ones.
    """
    label = _lookup(value)
    if label is None:
        raise UnsupportedLanguageError(_refusal(value))
    return label


def known_language(value: str | None) -> str | None:
    """`canonical` of an option that may be left to the identification: None and "auto" give None.

    Raises:
        UnsupportedLanguageError: it is no language.
    """
    return None if value is None or _folded(value) == AUTO else canonical(value)


def lenient(value: str) -> str | None:
    """`canonical`, or None where it is no language that is known here."""
    return _lookup(value)


def fireredlid_label(value: str | None) -> str | None:
    """The label of FireRedLID that a manifest's language stands for: "en-US" → "en"; None if there is none."""
    label = lenient(value or "")
    return label if label is not None and base(label) in FIREREDLID else None


def base(label: str) -> str:
    """Code of the language alone: "zh yue" → "zh"."""
    return label.partition(" ")[0]


def whisper_code(value: str) -> str | None:
    """What Whisper calls a language: "iw" → "he", "zh yue" → "zh", "Tibetan" → "bo"; None if it does not know it."""
    label = lenient(value)
    if label is None:
        return None
    if label == "zh bo":  # a dialect group of Chinese to FireRedLID, a language of its own to Whisper
        return "bo"
    code = base(label)
    return next((c for c in (code, *LANGUAGES[code].codes) if c in WHISPER_CODES), None)


OTHER = "other"
"""label of FireRedLID for a language that is none of its own"""


def name_of(label: str, locale: Locale = "en") -> str:
    """Name a language, dialect group or label of both; what is not known names itself.

    Args:
        label: "fr", "zh", "yue" or "zh yue".
        locale: language of the name.
    """
    language, _, dialect = label.partition(" ")
    if dialect:
        return f"{name_of(language, locale)} ({name_of(dialect, locale)})"
    if label == OTHER:
        return "another language" if locale == "en" else "其他语言"
    names = LANGUAGES.get(language) or DIALECTS.get(language)
    if names is None:
        return label
    return names.english[0] if locale == "en" else names.chinese


def nearest(value: str) -> list[str]:
    """Labels whose codes or names look like a value, the likeliest first."""
    spellings = _spellings()
    folded = _folded(value)
    close = difflib.get_close_matches(folded, spellings, n=3 * _SPELLINGS, cutoff=0.6 if len(folded) > 3 else 0.5)
    return list(dict.fromkeys(spellings[spelling] for spelling in close))[:_SPELLINGS]


@lru_cache(maxsize=1)
def _spellings() -> dict[str, str]:
    """Every spelling, folded → label."""
    found: dict[str, str] = {}
    for code, names in LANGUAGES.items():
        for spelling in (code, *names.codes, *names.english, names.chinese, *names.own):
            found.setdefault(_folded(spelling), code)
    for code, names in DIALECTS.items():
        for spelling in (code, *names.codes, *names.english, names.chinese, *names.own):
            found.setdefault(_folded(spelling), f"zh {code}")
    return found


def _folded(value: str) -> str:
    """Case, accents' encoding, brackets and the marks between words do not matter."""
    text = unicodedata.normalize("NFKC", value).casefold()
    return " ".join(re.sub(r"[\s_()/,-]+", " ", text).split())


@lru_cache(maxsize=4096)
def _lookup(value: str) -> str | None:
    spellings, folded = _spellings(), _folded(value)
    if folded in spellings:
        return spellings[folded]
    first, _, rest = folded.partition(" ")
    language = spellings.get(first)
    tag = _TAG.fullmatch(unicodedata.normalize("NFKC", value).casefold().strip())
    inner = spellings.get(rest) or (spellings.get(rest.partition(" ")[0], "") if tag else "")
    if language is not None and base(language) == "zh" and inner.startswith("zh "):
        return inner  # zh yue, zh-yue-HK, Chinese (Cantonese)
    return spellings[tag[1]] if tag and tag[1] in _codes() else None


@lru_cache(maxsize=1)
def _codes() -> frozenset[str]:
    tables = (*LANGUAGES.items(), *DIALECTS.items())
    return frozenset(code for own, names in tables for code in (own, *names.codes))


def _refusal(value: str) -> str:
    shown = value if len(value) <= 40 else value[:40] + "…"
    close = [f"{label} ({name_of(label)})" for label in nearest(value)]
    advice = f"did you mean {' or '.join(close)}?" if close else "write a code such as en or zh, a name, or auto"
    return f"{shown!r} is no language that is known here; {advice}"
