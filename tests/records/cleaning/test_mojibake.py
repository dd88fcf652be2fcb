"""UTF-8 that was read as something else: repaired, or told."""

import json
from pathlib import Path

import pytest

from weitiao.records.cleaning.mojibake import repair, unrestored


def read_as_cp936(data: bytes) -> str:
    """Windows' reading: 0x80 is the euro sign, half a character becomes a question mark."""
    out, place = [], 0
    while place < len(data):
        pair = data[place : place + 2]
        if pair[0] <= 0x80:
            out.append("€" if pair[0] == 0x80 else chr(pair[0]))
            place += 1
        elif len(pair) == 2 and pair[1] >= 0x40 and pair[1] != 0x7F and pair[1] != 0xFF:
            out.append(pair.decode("gb18030"))
            place += 2
        else:
            out.append("?")
            place += 1
    return "".join(out)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("浣犲ソ", "你好"),
        ("浠婂ぉ澶╂皵鎬庝箞鏍�?", "今天天气怎么�"),
        ("it鈥檚", "it’s"),
        ("cafÃ© itâ€™s 10Â°C ðŸ˜€", "café it’s 10°C 😀"),
        ("Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "привет"),
        ("Î¸ = Ï\x80", "θ = π"),
        ("ä½\xa0å¥½", "你好"),
        ("第一行好\n浣犲ソ", "第一行好\n你好"),
    ],
)
def test_repaired(before: str, after: str) -> None:
    assert repair(before) == after


@pytest.mark.parametrize(
    "text",
    [
        "浼熬妫咒砍",
        "伲锛存棼猗?",
        "缃部?",
        "浜步?",
        "绂憨姝妫耀?",
        "联通",
        "涓涓细流",
        "一一",
        "«\xa0café\xa0»",
        "« CAFÉ »",
        "été…»",
        "MAÇÃ",
        "« MAÇÃ»",
        "NÍŽ",
        "Ñ¿",
        "鈥",
        "10€",
        "垚\ud800",
    ],
)
def test_left_alone(text: str) -> None:
    assert repair(text) == text


@pytest.mark.parametrize("codec", ["latin-1", "cp936"])
def test_real_texts_come_back(shared: Path, codec: str) -> None:
    rows = json.loads((shared / "data/alpaca_zh.json").read_text("utf-8"))
    texts = [row["output"] for row in rows if not row["output"].isascii()][:300]
    exact, characters, restored = 0, 0, 0
    for text in texts:
        data = text.encode()
        back = repair(data.decode(codec) if codec == "latin-1" else read_as_cp936(data))
        exact += back == text
        characters += len(text)
        restored += len(back) - 2 * back.count("\ufffd")
    if codec == "latin-1":
        # Of 300, one holds an accented letter that alone might be a letter and a quote.
        assert exact / len(texts) > 0.99
    else:
        # Half characters at the end of odd stretches are lost for good: 1 in 25.
        assert restored / characters > 0.9


def test_a_poem_of_even_length_comes_back_whole() -> None:
    for poem in ("低头思故乡，举头望明月！", "好。你"):
        assert repair(read_as_cp936(poem.encode())) == poem
    assert "€" in read_as_cp936(poem.encode())


def test_what_would_read_no_better_is_left_alone() -> None:
    for rare in ("䂁䂂", "中䂁䂂䂃"):
        misread = rare.encode().decode("gb18030")
        assert repair(misread) == misread


def test_what_is_lost_is_told() -> None:
    assert unrestored("都好好的") is None
    assert (
        unrestored("x" * 100 + "锟斤拷锟斤拷" + "y" * 100) == "x" * 20 + "锟斤拷锟斤拷" + "y" * 34
    )
    assert unrestored(repair("浠婂ぉ澶╂皵鎬庝箞鏍�?")) == "今天天气怎么�"
