"""Tokens to text: stop strings over pieces, reasoning apart, probabilities beside their text."""

import pytest

from serving.counting import decode, encode
from weitiao.serving.engine import Logprob, Step
from weitiao.serving.text import Reader, Said, opens_reasoning


def read(reader: Reader, text: str, finish: str = "stop") -> list[Said]:
    """A token a step, and the end after them."""
    said = []
    for token in encode(text):
        said.append(reader.read(Step((token,), logprobs=(Logprob(token, -1.0),))))
        if reader.finish:
            return said
    return [*said, reader.read(Step((), finish))]  # type: ignore[arg-type]


def joined(said: list[Said]) -> tuple[str, str]:
    return "".join(s.text for s in said), "".join(s.reasoning for s in said)


@pytest.mark.parametrize("text", ["", "你好🙂𠮷", "a\ufffdb", "半个\ufffd", "x  y\n\n z "])
def test_a_text_comes_out_whole(text: str) -> None:
    reader = Reader(decode)
    assert joined(read(reader, text)) == (text, "")
    assert reader.finish == "stop"
    assert reader.tokens == len(encode(text))


@pytest.mark.parametrize(
    ("text", "stops", "left"),
    [
        ("one END two", ("END",), "one "),
        ("one EN END", ("END",), "one EN "),
        ("one EN", ("END",), "one EN"),
        ("ababac", ("abac",), "ab"),
        ("问：答：问：", ("答：", "问："), ""),
        ("a\n\nb", ("\n\n",), "a"),
    ],
)
def test_stop_strings(text: str, stops: tuple[str, ...], left: str) -> None:
    reader = Reader(decode, stops)
    said = read(reader, text, "length")
    assert joined(said) == (left, "")
    assert reader.finish == ("length" if left == text else "stop")


def test_what_may_become_a_stop_string_waits() -> None:
    reader = Reader(decode, ("\n\n",))
    (newline,) = encode("\n")
    assert reader.read(Step((newline,))).text == ""
    assert reader.read(Step(tuple(encode("好")))).text == "\n好"


def test_probabilities_belong_to_the_text_that_is_told() -> None:
    reader = Reader(decode, ("END",))
    said = read(reader, "床前明月光 END 疑是")
    told = [one.id for step in said for one in step.logprobs]
    assert decode(told).startswith("床前明月光")
    assert "END" not in decode(told)
    plain = Reader(decode)
    everything = [one.id for step in read(plain, "床前🙂光") for one in step.logprobs]
    assert everything == encode("床前🙂光")


def test_reasoning_is_told_apart_and_holds_no_stop_string() -> None:
    said = read(Reader(decode, ("。",), thinking=True), "想一想。</think>\n\n答案是四。再见")
    assert joined(said) == ("答案是四", "想一想。")
    never = read(Reader(decode, thinking=True), "想</thin", "length")
    assert joined(never) == ("", "想</thin")


def test_an_opener_that_closes_at_once_opens_nothing() -> None:
    assert opens_reasoning("<think>\n")
    assert not opens_reasoning("<think>\n\n</think>\n\n")
    assert not opens_reasoning("")
