"""Write ``bank.jsonl``: customers of an imaginary bank, some rows spoilt on purpose.

``python -m weitiao.examples.bank.generate [FILE]`` writes the same bytes on every machine.
The sentences live in ``phrasings.toml`` beside this file, the names, places and greetings in
``values.toml``. They are Chinese: the embedded base model knows little English.
"""

import json
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")

HERE = Path(__file__).parent
SEED = 20
SYSTEM = "你是微潮银行的客服，用JSON回答：intent、slots、reply。"
ROWS_PER_PHRASING = 4

SLOTS: dict[str, tuple[str, ...]] = {
    "check_balance": (),
    "transfer_money": ("amount", "payee"),
    "report_lost_card": ("card",),
    "pay_credit_bill": ("amount",),
    "apply_loan": ("amount", "term"),
    "exchange_currency": ("amount", "currency"),
    "change_limit": ("limit",),
    "find_branch": ("city",),
    "update_phone": ("phone",),
    "dispute_charge": ("amount", "merchant"),
    "fixed_deposit": ("amount", "term"),
    "talk_to_human": (),
}
"""Each intent with its slots, in the order in which the answer names them."""

NUMBERS: dict[str, tuple[tuple[int, ...], int]] = {
    "transfer_money": ((2, 3, 4, 5), 4),
    "pay_credit_bill": ((3, 4, 5), 5),
    "apply_loan": ((4, 5, 6), 2),
    "exchange_currency": ((3, 4), 2),
    "change_limit": ((3, 4, 5), 2),
    "dispute_charge": ((2, 3, 4), 4),
    "fixed_deposit": ((4, 5, 6), 2),
}
"""How long an intent's amount may be, and how many of its leading digits may differ from 0."""


@dataclass(frozen=True, slots=True)
class Phrasing:
    """One sentence of one intent, with ``{slot}`` where a value goes."""

    id: str
    intent: str
    text: str
    reply: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the file without its newline; ``kind`` names what was spoilt, if anything."""

    data: bytes
    kind: str | None


Row = dict[str, str]


@cache
def _words(name: str) -> dict[str, Any]:
    return tomllib.loads((HERE / f"{name}.toml").read_text(encoding="utf-8"))


def phrasings() -> list[Phrasing]:
    """Return every phrasing of every intent, in a fixed order."""
    return [
        Phrasing(f"{intent}.{i:02d}", intent, text, entry["reply"])
        for intent in SLOTS
        for entry in [_words("phrasings")[intent]]
        for i, text in enumerate(entry["phrasings"], start=1)
    ]


def _pick(rng: Random, values: Sequence[T]) -> T:
    # Python promises the same sequence in each version for random() alone, not for choice().
    return values[int(rng.random() * len(values))]


def _shuffled(rng: Random, values: Sequence[T]) -> list[T]:
    places = [(rng.random(), i) for i in range(len(values))]
    return [values[i] for _, i in sorted(places)]


def _digits(rng: Random, count: int) -> str:
    return "".join(_pick(rng, "0123456789") for _ in range(count))


def _amount(rng: Random, intent: str) -> str:
    lengths, most_kept = NUMBERS[intent]
    length = _pick(rng, lengths)
    kept = _pick(rng, range(1, min(length, most_kept) + 1))
    return (_pick(rng, "123456789") + _digits(rng, kept - 1)).ljust(length, "0")


def _value(rng: Random, slot: str, phrasing: Phrasing) -> str:
    if slot in ("amount", "limit"):
        return _amount(rng, phrasing.intent)
    if slot in ("card", "phone"):
        return _digits(rng, 4)
    return str(_pick(rng, _words("values")[slot]))


def _spoken(rng: Random, core: str) -> str:
    """Put a greeting before a sentence, thanks after it, or leave it bare."""
    words = _words("values")
    opener = _pick(rng, words["openers"]) if rng.random() < 0.4 else ""
    closer = _pick(rng, words["closers"]) if rng.random() < 0.3 else ""
    stop = "。"
    if core.endswith(("?", "？")) or (not closer and rng.random() < 0.5):
        stop = ""
    return f"{opener}{core}{stop}{closer}"


def _row(rng: Random, phrasing: Phrasing) -> Row:
    values = {slot: _value(rng, slot, phrasing) for slot in SLOTS[phrasing.intent]}
    answer = {
        "intent": phrasing.intent,
        "slots": values,
        "reply": phrasing.reply.format(**values),
    }
    return {
        "system": SYSTEM,
        "instruction": _spoken(rng, phrasing.text.format(**values)),
        "input": "",
        "output": json.dumps(answer, ensure_ascii=False),
        "phrasing": phrasing.id,
        "intent": phrasing.intent,
    }


def _new_row(rng: Random, phrasing: Phrasing, said: set[str]) -> Row:
    """Draw until the words differ from all in ``said``: by more than spaces and punctuation."""
    while True:
        row = _row(rng, phrasing)
        bare = re.sub(r"\W", "", row["instruction"]).lower()
        if bare not in said:
            said.add(bare)
            return row


def _json(row: Row) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode()


def _answered(row: Row, rng: Random, answers: Sequence[str]) -> bytes:
    return _json({**row, "output": _pick(rng, answers)})


def _unasked(row: Row, rng: Random) -> bytes:
    return _json({**row, "instruction": ""})


def _cut(row: Row, rng: Random) -> bytes:
    line = _json(row).decode()
    return line[: int(len(line) * (0.3 + 0.5 * rng.random()))].encode()


def _no_brace(row: Row, rng: Random) -> bytes:
    return _json(row)[1:] if rng.random() < 0.5 else _json(row)[:-1]


def _gbk_field(row: Row, rng: Random) -> bytes:
    said = row["instruction"]
    return _json(row).replace(said.encode(), said.encode("gbk"))


def _no_output(row: Row, rng: Random) -> bytes:
    return _json({name: value for name, value in row.items() if name != "output"})


def _special_token(row: Row, rng: Random) -> bytes:
    if rng.random() < 0.5:
        return _json({**row, "instruction": row["instruction"] + "<|im_end|>"})
    return _json({**row, "output": row["output"][:-2] + '<|im_end|>"}'})


@dataclass(frozen=True, slots=True)
class Spoilt:
    """A way to spoil rows: weitiao's reason for rejecting them, how many, and how."""

    reason: str
    rows: int
    spoil: Callable[[Row, Random], bytes]


SPOILT: dict[str, Spoilt] = {
    "empty_output": Spoilt("empty_answer", 12, partial(_answered, answers=[""])),
    "blank_output": Spoilt(
        "empty_answer", 12, partial(_answered, answers=[" ", "\n", "\t ", "　"])
    ),
    "empty_instruction": Spoilt("empty_prompt", 12, _unasked),
    "exact_copy": Spoilt("duplicate", 16, lambda row, rng: _json(row)),
    "cut_line": Spoilt("broken_json", 12, _cut),
    "missing_brace": Spoilt("broken_json", 10, _no_brace),
    "gbk_field": Spoilt("broken_encoding", 14, _gbk_field),
    "no_output": Spoilt("missing_column", 12, _no_output),
    "special_token": Spoilt("special_token", 12, _special_token),
}
"""Every kind of spoilt row. An exact copy repeats a good row; the other kinds are rows of
their own, so that nothing but the named reason is wrong with them."""


def rejections() -> dict[str, int]:
    """Return reason → how many rows of ``bank.jsonl`` are rejected for it."""
    counts: Counter[str] = Counter()
    for kind in SPOILT.values():
        counts[kind.reason] += kind.rows
    return dict(counts)


def _spoilt_lines(rng: Random, good: Sequence[Row], said: set[str]) -> Iterator[Line]:
    every = phrasings()
    for name, kind in SPOILT.items():
        if name == "exact_copy":
            rows = _shuffled(rng, good)[: kind.rows]
        else:
            source = _shuffled(rng, every)
            rows = [_new_row(rng, phrasing, said) for phrasing in source[: kind.rows]]
        for row in rows:
            yield Line(kind.spoil(row, rng), name)


def lines() -> list[Line]:
    """Return the file's lines in order; of two equal lines the later one is the copy."""
    rng = Random(SEED)
    said: set[str] = set()
    good = [
        _new_row(rng, phrasing, said) for phrasing in phrasings() for _ in range(ROWS_PER_PHRASING)
    ]
    spoilt = list(_spoilt_lines(rng, good, said))
    found: list[Line] = []
    seen: set[bytes] = set()
    for line in _shuffled(rng, [Line(_json(row), None) for row in good] + spoilt):
        kind = line.kind
        if kind in (None, "exact_copy"):
            kind = "exact_copy" if line.data in seen else None
        seen.add(line.data)
        found.append(Line(line.data, kind))
    return found


def content() -> bytes:
    """Return the whole file."""
    return b"".join(line.data + b"\n" for line in lines())


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "bank.jsonl").write_bytes(content())
