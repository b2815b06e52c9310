"""Labels of FireRedLID: 106 language codes and 8 Chinese dialect groups (report, Appendix B; SPEC section 8)."""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

_TABLE = """
zh Chinese 中文
en English 英语
es Spanish 西班牙语
fr French 法语
ja Japanese 日语
ko Korean 韩语
ru Russian 俄语
de German 德语
pt Portuguese 葡萄牙语
ab Abkhazian 阿布哈兹语
af Afrikaans 南非荷兰语
am Amharic 阿姆哈拉语
ar Arabic 阿拉伯语
as Assamese 阿萨姆语
az Azerbaijani 阿塞拜疆语
ba Bashkir 巴什基尔语
be Belarusian 白俄罗斯语
bg Bulgarian 保加利亚语
bn Bengali 孟加拉语
br Breton 布列塔尼语
bs Bosnian 波斯尼亚语
ca Catalan 加泰罗尼亚语
ceb Cebuano 宿务语
cs Czech 捷克语
cy Welsh 威尔士语
da Danish 丹麦语
el Greek 希腊语
eo Esperanto 世界语
et Estonian 爱沙尼亚语
eu Basque 巴斯克语
fa Persian 波斯语
fi Finnish 芬兰语
fo Faroese 法罗语
gl Galician 加利西亚语
gn Guarani 瓜拉尼语
gu Gujarati 古吉拉特语
gv Manx 马恩语
ha Hausa 豪萨语
haw Hawaiian 夏威夷语
hi Hindi 印地语
hr Croatian 克罗地亚语
ht Haitian_Creole 海地克里奥尔语
hu Hungarian 匈牙利语
hy Armenian 亚美尼亚语
ia Interlingua 国际语
id Indonesian 印度尼西亚语
is Icelandic 冰岛语
it Italian 意大利语
iw Hebrew 希伯来语
jw Javanese 爪哇语
ka Georgian 格鲁吉亚语
kk Kazakh 哈萨克语
km Khmer 高棉语
kn Kannada 卡纳达语
la Latin 拉丁语
lb Luxembourgish 卢森堡语
ln Lingala 林加拉语
lo Lao 老挝语
lt Lithuanian 立陶宛语
lv Latvian 拉脱维亚语
mg Malagasy 马尔加什语
mi Maori 毛利语
mk Macedonian 马其顿语
ml Malayalam 马拉雅拉姆语
mn Mongolian 蒙古语
mr Marathi 马拉地语
ms Malay 马来语
mt Maltese 马耳他语
my Burmese 缅甸语
ne Nepali 尼泊尔语
nl Dutch 荷兰语
nn Norwegian_Nynorsk 新挪威语
no Norwegian 挪威语
oc Occitan 奥克语
pa Punjabi 旁遮普语
pl Polish 波兰语
ps Pashto 普什图语
ro Romanian 罗马尼亚语
sa Sanskrit 梵语
sco Scots 苏格兰语
sd Sindhi 信德语
si Sinhala 僧伽罗语
sk Slovak 斯洛伐克语
sl Slovenian 斯洛文尼亚语
sn Shona 绍纳语
so Somali 索马里语
sq Albanian 阿尔巴尼亚语
sr Serbian 塞尔维亚语
su Sundanese 巽他语
sv Swedish 瑞典语
sw Swahili 斯瓦希里语
ta Tamil 泰米尔语
te Telugu 泰卢固语
tg Tajik 塔吉克语
th Thai 泰语
tk Turkmen 土库曼语
tl Tagalog 他加禄语
tr Turkish 土耳其语
tt Tatar 鞑靼语
uk Ukrainian 乌克兰语
ur Urdu 乌尔都语
uz Uzbek 乌兹别克语
vi Vietnamese 越南语
war Waray 瓦瑞语
yi Yiddish 意第绪语
yo Yoruba 约鲁巴语
"""

_DIALECT_TABLE = """
mandarin Mandarin 官话
yue Cantonese_(Yue) 粤语
wu Wu 吴语
min Min 闽语
north Northern_Mandarin 北方官话
xinan Southwestern_Mandarin 西南官话
xiang Xiang 湘语
bo Tibetan 藏语
"""


def _parse(table: str) -> MappingProxyType[str, tuple[str, str]]:
    rows = (line.split() for line in table.strip().splitlines())
    return MappingProxyType({code: (english.replace("_", " "), chinese) for code, english, chinese in rows})


OTHER = "other"
"""label of FireRedLID for a language that is none of its own"""
_OTHER_NAMES = ("another language", "其他语言")
LANGUAGES = _parse(_TABLE)
"""code → (English name, Chinese name)"""
DIALECTS = _parse(_DIALECT_TABLE)
"""Chinese dialect group → (English name, Chinese name)"""
NOT_IN_PAPER = frozenset({"nn", "sa", "sco", "sn", "su", "tg", "tk", "tl", "tt", "war"})
"""codes that the model has and the report's table leaves out"""
PAPER_LANGUAGES = frozenset(LANGUAGES) - NOT_IN_PAPER
"""the 96 languages of the report's table"""


def language_name(code: str, locale: Literal["en", "zh"] = "en") -> str:
    """Name a language or "zh dialect" label; an unknown code names itself.

    Args:
        code: "fr", "zh", "yue" or "zh yue".
        locale: language of the name.
    """
    which = 0 if locale == "en" else 1
    language, _, dialect = code.partition(" ")
    if dialect:
        return f"{language_name(language, locale)} ({language_name(dialect, locale)})"
    names = _OTHER_NAMES if code == OTHER else LANGUAGES.get(code) or DIALECTS.get(code)
    return names[which] if names else code
