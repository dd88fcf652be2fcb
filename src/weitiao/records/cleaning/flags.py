"""Signs of bad rows, found in a question and its answer; each returns what it saw, or None.

All are made for precision: a sign that is often wrong is soon ignored.
"""

import json
import re
from collections.abc import Callable

from weitiao.records.cleaning.language import ENGLISH, Letters, mostly_chinese
from weitiao.records.options import FlagName

SHOWN = 120
"""The most characters that are shown of what was found."""

# --- language mix ------------------------------------------------------------------------

_ASKS_FOR_ANOTHER = re.compile(
    "翻译|译成|译为|英文|英语|中文|汉语|双语|外语|日语|法语|德语|语言|单词|词汇|术语|缩写|拼写|代码|程序|函数|公式|编程|命令"
    "|网址|链接|歌|电影|translat|english|chinese|mandarin|language|code|program|function|pinyin"
    "|sql|python|java|html|regex|词",
    re.IGNORECASE,
)
CODE = re.compile(
    r"```|^[ \t]*(?:def|import|from|class|SELECT|#include|public|<\w+>)\b", re.MULTILINE
)
"""A line that only code has."""

_LATIN_SENTENCE = re.compile(r"(?<![A-Za-z])[A-Za-z]{1,20}(?:[,;:]? [A-Za-z][A-Za-z'’-]*){8,}")
_FEWEST_WORDS = 12
_FEWEST_CHARACTERS = 16


def language_mix(question: str, answer: str) -> str | None:
    """The answer is in another language than the question, without being asked to."""
    if mostly_chinese(answer) and mostly_chinese(question):
        return None
    if answer.isascii() and question.isascii():
        return None
    asked, said = Letters.of(question), Letters.of(answer)
    if _ASKS_FOR_ANOTHER.search(question) or CODE.search(answer) or CODE.search(question):
        return None
    if asked.main == "latin" and asked.han == 0:
        return answer[:SHOWN] if said.main == "zh" and said.han >= _FEWEST_CHARACTERS else None
    if asked.main != "zh" or asked.words * 8 >= asked.han or said.words < _FEWEST_WORDS:
        return None
    if said.han * 4 < said.words:
        return answer[:SHOWN]
    # An English sentence in a Chinese answer: names and terms are shorter.
    runs = (run[0] for run in _LATIN_SENTENCE.finditer(answer))
    return next((run[:SHOWN] for run in runs if len(ENGLISH.findall(run)) >= 3), None)


# --- repeats the prompt --------------------------------------------------------------------

_FEWEST_REPEATED = 10
_BEGINNING = 40


def repeats_prompt(question: str, answer: str) -> str | None:
    """The answer begins with the whole question, or nearly so: after a few words."""
    asked = question.strip()
    if len(asked) < _FEWEST_REPEATED or asked[:8] not in answer[: _BEGINNING + 8]:
        return None
    place = answer.find(asked, 0, _BEGINNING + len(asked))
    return asked[:SHOWN] if place >= 0 else None


# --- refusals ----------------------------------------------------------------------------

_CAN_IT = r"(?:cannot|can['’]t|can not|am unable|am not able|['’]m unable|['’]m not able)"
_REFUSAL = re.compile(
    # Chinese: who speaks, and that it cannot; an apology, and that it cannot.
    "(?:作为|身为|我(?:只)?是)(?:一[个名位款种])?(?:AI|人工智能|大型?语言|语言)[^。！？\n]{0,24}?"
    "我?(?:无法|不能|没有(?:能力|办法|个人|情感|感情|身体|权限)|不具备|不会有|并不)"
    "|(?:抱歉|对不起|不好意思|很遗憾)[^。！？\n]{0,8}?(?:我|作为)[^。！？\n，]{0,12}?"
    "(?:无法|不能|没办法|没有办法)"
    "|我(?:无法|不能|没有办法)(?:直接)?"
    "(?:提供|回答|完成|满足|协助|帮助|帮您|帮你|为您|为你|执行|访问|处理|生成|给出)"
    # English.
    r"|\bas an? (?:AI|artificial intelligence|(?:large )?language model)\b[^.!?\n]{0,60}?"
    rf"\b(?:I|it) ?(?:{_CAN_IT}|do(?: not|n['’]t)|am not capable|['’]m not capable)"
    rf"|\bI(?: apologi[sz]e|['’]m sorry|['’]m afraid| am sorry| am afraid)[^.!?\n]{{0,40}}?"
    rf"\bI ?{_CAN_IT}"
    rf"|\bI ?{_CAN_IT} (?:to )?"
    "(?:assist|help|provide|fulfil|comply|answer|access|complete|generate)",
    re.IGNORECASE,
)
_OPENING = 160
_CANNOT = ("无法", "不能", "没", "不具备", "不会有", "并不", "not", "n't", "n’t", "unable")


def refusal(question: str, answer: str) -> str | None:
    """The answer opens with the stock phrases by which models refuse or excuse themselves."""
    opening = answer[:_OPENING]
    for word in _CANNOT:
        if word in opening:
            found = _REFUSAL.search(opening)
            return answer[found.start() : found.start() + SHOWN] if found else None
    return None


# --- unfinished --------------------------------------------------------------------------

_OPEN_ENDS = ",，、；：:（([【《「『“‘"
_ENDING_WORD = re.compile(
    r"(?:\b(?:and|or|but|the|a|an|of|to|with|because|which|that is|for|in|by|as|be|is|are)"
    "|因为|但是|而且|并且|所以|以及|例如|比如|由于|如果|虽然|或者|[，。；！？][^，。；！？]{0,12}和)$"
)
_ENGLISH_SENTENCE_END = re.compile(r"[a-z)][.!?] ")
_FEWEST_LONG = 200
_FEWEST_IN_LAST_LINE = 40


def unfinished(question: str, answer: str) -> str | None:
    """The answer ends with a comma or a conjunction, or a long English one within a sentence.

    Chinese answers without a full stop are too frequent to mean anything.
    """
    text = answer.rstrip()
    if len(text) < 15 or text[-1] in "。！？.!?" or CODE.search(text):
        return None
    last = text[text.rfind("\n") + 1 :]
    if text[-1] in _OPEN_ENDS or (len(last) > 15 and _ENDING_WORD.search(last[-20:])):
        return last[-SHOWN:]
    if not (len(text) >= _FEWEST_LONG and len(last) >= _FEWEST_IN_LAST_LINE):
        return None
    last_word = last.rpartition(" ")[2]
    breaks_off = last_word.isascii() and last_word.isalpha()
    return last[-SHOWN:] if breaks_off and _ENGLISH_SENTENCE_END.search(last) else None


# --- quotes and JSON -----------------------------------------------------------------------

_PAIRS = (("“", "”"), ("「", "」"), ("『", "』"), ("《", "》"), ("【", "】"), ("(", ")"))
_MARKS = re.compile("[“”「」『』《》（）【】()]")
# 1) and a) count, :) smiles and 6” is a length: none of them closes anything.
_CLOSES_NOTHING = re.compile(r"(?:(?<![A-Za-z0-9])[A-Za-z0-9一二三四五六七八九十]{1,3}|[:;]-?|\d)$")


def unbalanced_quotes(question: str, answer: str) -> str | None:
    """Quotes or brackets of which one is missing, outside of code and formulas."""
    if not _MARKS.search(answer):
        return None
    text = answer.replace("（", "(").replace("）", ")")
    odd = [(one, other) for one, other in _PAIRS if text.count(one) != text.count(other)]
    if not odd or CODE.search(answer):
        return None
    places = [_unpaired(text, opening, closing) for opening, closing in odd]
    place = next((place for place in places if place is not None), None)
    return None if place is None else answer[max(place - 30, 0) : place + 30]


def _unpaired(text: str, opening: str, closing: str) -> int | None:
    """Return the place of the first mark without its partner."""
    opened: list[int] = []
    for mark in re.finditer(f"[{re.escape(opening + closing)}]", text):
        before = text[max(mark.start() - 4, 0) : mark.start()]
        if mark[0] == opening:
            if before[-1:] not in (":", ";"):
                opened.append(mark.start())
        elif opened:
            opened.pop()
        elif not _CLOSES_NOTHING.search(before):
            return mark.start()
    return opened[0] if opened else None


_FENCE = re.compile(r"```json\s*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
_OPENS_JSON = re.compile(r'\s*(?:\{\s*(?:"|\})|\[\s*(?:\{\s*"|"))')
_JSON = json.JSONDecoder(strict=False)


def broken_json(question: str, answer: str) -> str | None:
    """What looks like JSON, as the whole answer or fenced as such, does not parse."""
    if answer[:1] in "{[ \n\t" and _OPENS_JSON.match(answer):
        candidates = [answer]
    elif "```" in answer:
        candidates = _FENCE.findall(answer)
    else:
        return None
    return next((text.strip()[:SHOWN] for text in candidates if not _parses(text)), None)


def _parses(text: str) -> bool:
    try:
        _JSON.raw_decode(text.strip())
    except (ValueError, RecursionError):
        return False
    return True


ABOUT_ANSWERS: dict[FlagName, Callable[[str, str], str | None]] = {
    "language_mix": language_mix,
    "repeats_prompt": repeats_prompt,
    "refusal": refusal,
    "unfinished": unfinished,
    "unbalanced_quotes": unbalanced_quotes,
    "broken_json": broken_json,
}
"""The flags that a question and its answer tell, each as (question, answer) → what was seen."""
