import codecs

import pytest

from weitiao.errors import DataError
from weitiao.records.reading.encoding import Coding, Encoding, coding_of, detect, given

SIMPLIFIED = "糖尿病患者能够进行缓解吗？可是年纪大了，看过医生。\n心血管科，老人一般如何治疗？\n"
POEM = "曾随风水化凡鳞，安上门前一字新。\n闻道蜀江风景好，不知何似杏园春。\n"
TRADITIONAL = "這個問題我們應該怎麼處理？請說明原因，並給出具體的方法。\n"
ENGLISH = '{"ask": "Where is the bank?", "answer": "Over there."}\n'


@pytest.mark.parametrize("text", [SIMPLIFIED, POEM, TRADITIONAL, ENGLISH + POEM])
def test_each_encoding_is_known_by_how_it_reads(text):
    assert detect(text.encode()).name == "utf-8"
    assert detect(text.encode("gb18030")).name == "gb18030"
    assert detect(codecs.BOM_UTF8 + text.encode()).name == "utf-8-sig"
    assert detect(text.encode("utf-16")).name == "utf-16"
    assert detect(b"\x84\x31\x95\x33" + text.encode("gb18030")).name == "gb18030"


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark(codec):
    assert detect((ENGLISH + POEM).encode(codec)).name == codec


def test_big5():
    assert detect(TRADITIONAL.encode("big5")).name == "big5"


def test_plain_ascii_is_utf8():
    assert detect(ENGLISH.encode()).name == "utf-8"


def test_a_few_spoilt_lines_do_not_change_the_file():
    lines = [POEM.encode()] * 12 + [SIMPLIFIED.encode("gb18030")]
    found = detect(b"".join(lines))
    assert (found.name, found.how) == ("utf-8", "reading")
    lines = [POEM.encode("gb18030")] * 12 + [SIMPLIFIED.encode()]
    assert detect(b"".join(lines)).name == "gb18030"


def test_a_named_encoding_is_taken_and_a_wrong_name_refused():
    assert given("GBK").name == "gbk"
    with pytest.raises(DataError, match="gb18030"):
        given("klingon")


def test_names_alone_are_told_by_what_cannot_be_decoded():
    assert detect("张伟,李娜\n龚琳,崔颢\n".encode("gb18030")).name == "gb18030"


def test_a_stray_zero_byte_is_not_utf16():
    assert detect(b"\0" + ENGLISH.encode() * 3).name == "utf-8"


SHORT = [
    "糖尿病患者能吃西瓜吗",
    "银行卡丢了怎么办",
    "请介绍一下北京的历史",
    "今天天气很好",
    "如何修改密码？",
    "合同纠纷如何处理",
    "高血压的饮食禁忌",
    "骆驼祥子",
]
SHORT_TRADITIONAL = [
    "這個問題怎麼處理",
    "銀行卡遺失了怎麼辦",
    "請介紹一下臺北的歷史",
    "今天天氣很好",
    "合約糾紛如何處理",
    "高血壓的飲食禁忌",
    "龍應台,余光中",
]


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        *((text, c) for text in SHORT for c in ("utf-8", "gb18030", "utf-16-le", "utf-16-be")),
        *((text, c) for text in SHORT_TRADITIONAL for c in ("utf-8", "gb18030", "big5", "utf-16")),
    ],
)
def test_a_few_characters_are_enough(text, codec):
    for form in ("{}\n", '{{"ask": "{}"}}\n', "q,a\n{},x\n"):
        assert detect(form.format(text).encode(codec)).name == codec


def test_english_with_a_foreign_byte_is_not_taken_for_chinese():
    """As GB18030 the byte would swallow the letter after it."""
    assert detect(b"I don\x92t know where the bank is.\n" * 3).name == "utf-8"


def test_french_with_a_broken_byte_stays_utf8():
    text = "déjà vu, où êtes-vous, garçon élève préféré\n".encode()
    assert detect(text * 5 + b"\xff\n" + text) == Encoding("utf-8", "reading")


def test_a_sample_that_ends_within_a_character_is_valid():
    assert detect(POEM.encode()[:-3]).how == "valid"


def test_codecs_that_are_no_text_are_refused():
    with pytest.raises(DataError):
        given("base64")


def test_coding_tells_line_ends_and_gives_bytes_back():
    assert coding_of("utf-16", codecs.BOM_UTF16_BE + "a\r".encode("utf-16-be")) == Coding(
        "utf-16-be", b"\0\r"
    )
    assert coding_of("utf-8-sig", b"a\rb\n").newline == b"\n"
    for codec in ("utf-8", "gb18030", "utf-16-le"):
        coding = coding_of(codec, b"")
        broken = (
            POEM.encode(codec)[:20] + b"\xff\x81" + "末\ud83d".encode("utf-16-le", "surrogatepass")
        )
        assert coding.raw(broken.decode(codec, coding.errors)) == broken
