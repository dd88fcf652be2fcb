"""Private data: found by form and check digit, and nothing that only looks like it."""

import pytest

from weitiao.records.cleaning.private import find_private, mask, veil
from weitiao.records.options import CleanOptions

KINDS = CleanOptions().private_kinds


def found(text: str) -> list[tuple[str, str]]:
    return [(s.kind, text[s.start : s.end]) for s in find_private(text, KINDS)]


@pytest.mark.parametrize(
    ("text", "kind", "what"),
    [
        ("我的手机号是13812345678，请联系", "phone", "13812345678"),
        ("电话138-1234-5678。", "phone", "138-1234-5678"),
        ("打+86 139 8765 4321", "phone", "+86 139 8765 4321"),
        ("手机１３８１２３４５６７８", "phone", "１３８１２３４５６７８"),
        ("座机010-88886666转1", "phone", "010-88886666"),
        ("（0571）87654321", "phone", "（0571）87654321"),
        ("身份证11010519491231002X。", "id_number", "11010519491231002X"),
        ("身份证１１０１０５１９４９１２３１００２Ｘ", "id_number",
         "１１０１０５１９４９１２３１００２Ｘ"),
        ("卡号6222021234567890128", "bank_card", "6222021234567890128"),
        ("visa 4111 1111 1111 1111", "bank_card", "4111 1111 1111 1111"),
        ("写信到zhang.san@qq.com吧", "email", "zhang.san@qq.com"),
        ("+86 13812345678@139.com", "email", "13812345678@139.com"),
        ("家在北京市朝阳区建国路88号院3号楼2单元501室", "address",
         "北京市朝阳区建国路88号院3号楼2单元501室"),
        ("我住在杭州市西湖区文三路478号", "address", "杭州市西湖区文三路478号"),
        ("He lives at 123 Main Street, Springfield, IL 62704.", "address",
         "123 Main Street, Springfield, IL 62704"),
    ],
)  # fmt: skip
def test_found(text: str, kind: str, what: str) -> None:
    assert found(text) == [(kind, what)]


@pytest.mark.parametrize(
    "text",
    [
        "订单号DD13812345678",
        "202313812345678",
        "13812345678.5 0.13812345678",
        "2023-13812345678-001",
        "12812345678",  # no mobile network
        "400-820-8820",  # a company's
        "110105194912310021",  # wrong check digit
        "110105194913310022",  # month 13
        "11010529491231002X",  # not born yet
        "4111111111111112",  # wrong check digit
        "1234567890123452",  # Luhn holds, no card begins so
        "3.14159265358979323846",
        "ISBN 978-7-111-12345-6",
        "someone@example.com user@host git@github.com:x/y.git 10@3.5",
        "1号选手路过3号房，一路走来",
        "第88号文件",
        "I walked 3 Long Roads",
        "",
    ],
)
def test_not_found(text: str) -> None:
    assert found(text) == []


def test_only_the_kinds_asked_for() -> None:
    text = "13812345678 a@qq.com"
    assert [s.kind for s in find_private(text, ["email"])] == ["email"]
    assert mask(text, ["email"]) == "13812345678 [EMAIL]"


def test_several_in_a_row_and_masked_in_the_text_s_language() -> None:
    assert mask("13812345678,13912345678/15012345678 call", KINDS) == "[PHONE],[PHONE]/[PHONE] call"
    assert mask("11010519491231002X-13812345678", KINDS) == "[ID NUMBER]-[PHONE]"
    assert mask("电话13812345678，邮箱a@qq.com", KINDS) == "电话[电话号码]，邮箱[邮箱]"


def test_veiled() -> None:
    assert veil("13812345678") == "138****78"
    assert veil("a@b.cn") == "a****"
