import codecs

import pytest

from weitiao.errors import DataError
from weitiao.records.reading.encoding import detect, given

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
