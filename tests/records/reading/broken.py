"""Broken files, made from good ones of every kind by seeded mutation."""

import io
import json
import random
from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path

SEED = 20
ROWS = [
    {
        "question": f"第{i}个问题：银行卡丢了怎么办，“马上”挂失吗？",
        "answer": f'请在{i}天内 "致电", 客服，\n再去柜台。',
    }
    for i in range(30)
]
TALKS = [
    {
        "messages": [
            {"role": "user", "content": row["question"]},
            {"role": "assistant", "content": row["answer"]},
        ]
    }
    for row in ROWS
]
HUGE = 50 << 20
"""Bytes of the one line that is too long for anybody."""


def dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def as_csv(delimiter: str = ",") -> str:
    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    lines = [delimiter.join(("question", "answer"))]
    lines += [delimiter.join((cell(row["question"]), cell(row["answer"]))) for row in ROWS]
    return "\r\n".join(lines) + "\r\n"


@cache
def as_xlsx() -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    book.active.append(["question", "answer"])
    for row in ROWS:
        book.active.append([row["question"], row["answer"]])
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


@cache
def as_parquet() -> bytes:
    import pyarrow
    from pyarrow import parquet

    out = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), out, row_group_size=10)
    return out.getvalue()


@cache
def as_docx() -> bytes:
    import docx

    document = docx.Document()
    for row in ROWS:
        document.add_paragraph(row["answer"])
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


@cache
def as_pdf() -> bytes:
    from reportlab.pdfgen.canvas import Canvas

    out = io.BytesIO()
    canvas = Canvas(out)
    for i in range(3):
        canvas.drawString(72, 700, f"Page {i} asks for a lost bank card.")
        canvas.showPage()
    canvas.save()
    return out.getvalue()


TEXTS = {
    "jsonl": "\n".join(map(dumped, ROWS)) + "\n",
    "talks.jsonl": "\n".join(map(dumped, TALKS)) + "\n",
    "json": json.dumps(ROWS, ensure_ascii=False, indent=1),
    "talks.json": json.dumps(TALKS, ensure_ascii=False, indent=2),
    "data.json": json.dumps({"version": 1, "data": ROWS}, ensure_ascii=False),
    "csv": as_csv(),
    "tsv": as_csv("\t"),
    "txt": "\n".join(row["answer"] for row in ROWS),
    "md": "# 问答\n\n" + "\n\n".join(f"## {row['question']}\n{row['answer']}" for row in ROWS),
}
BINARIES: dict[str, Callable[[], bytes]] = {
    "xlsx": as_xlsx,
    "parquet": as_parquet,
    "docx": as_docx,
    "pdf": as_pdf,
}


def place(r: random.Random, data: bytes | str) -> int:
    return r.randrange(len(data) // 10, len(data))


def cut(data: bytes, r: random.Random) -> bytes:
    return data[: place(r, data)]


def cut_in_mid_character(data: bytes, r: random.Random) -> bytes:
    places = [i for i in range(len(data) // 10, len(data)) if data[i] & 0xC0 == 0x80]
    return data[: r.choice(places or [len(data) - 1])]


def flip_bytes(data: bytes, r: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(10):
        out[r.randrange(len(out))] = r.randrange(256)
    return bytes(out)


def drop_bytes(data: bytes, r: random.Random) -> bytes:
    at = place(r, data)
    return data[:at] + data[at + r.randrange(1, 30) :]


def put_in(*what: bytes) -> Callable[[bytes, random.Random], bytes]:
    def mutate(data: bytes, r: random.Random) -> bytes:
        for piece in what:
            at = place(r, data)
            data = data[:at] + piece + data[at:]
        return data

    return mutate


def instead(old: str, new: str) -> Callable[[bytes, random.Random], bytes]:
    """``new`` in place of one ``old``, wherever it stands."""

    def mutate(data: bytes, r: random.Random) -> bytes:
        parts = data.split(old.encode())
        if len(parts) < 2:
            return data + new.encode()
        at = r.randrange(1, len(parts))
        return old.encode().join(parts[:at]) + new.encode() + old.encode().join(parts[at:])

    return mutate


def all_instead(old: str, new: str) -> Callable[[bytes, random.Random], bytes]:
    return lambda data, r: data.replace(old.encode(), new.encode())


def twice(data: bytes, r: random.Random) -> bytes:
    return data + data


MUTATIONS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut": cut,
    "cut_in_mid_character": cut_in_mid_character,
    "flipped": flip_bytes,
    "dropped": drop_bytes,
    "twice": twice,
    "mark_in_the_middle": put_in(b"\xef\xbb\xbf"),
    "marks_on_lines": all_instead("\n", "\n\ufeff"),
    "zeros": put_in(b"\0", b"\0\0\0"),
    "other_encoding": put_in("银行卡".encode("gbk"), "銀行".encode("big5")),
    "separators": put_in("\u2028".encode(), "\u2029\u0085".encode()),
    "carriage_returns": all_instead("\n", "\r"),
    "wrong_quotes": all_instead('"', "“"),
    "single_quotes": all_instead('"', "'"),
    "quote": put_in(b'"'),
    "quotes": put_in(b'"', b'"', b'"'),
    "opened": instead("\n", '\n"'),
    "brackets": put_in(b"{", b"]", b"}"),
    "deep": put_in(b"[" * 3000),
    "deep_objects": put_in(b'{"a":' * 3000),
    "no_comma": instead(",", " "),
    "delimiters": put_in(b",,", b"\t"),
    "null": instead('"answer": ', '"answer": null, "was": '),
    "nested_lists": instead('"answer": ', '"answer": [["a", ["b"]]], "was": '),
    "number": instead('"answer": ', '"answer": 12345678901234567890123, "was": '),
    "nan": instead('"answer": ', '"answer": NaN, "was": -Infinity, "is": '),
    "same_key": instead('"answer": ', '"question": "x", "answer": '),
    "same_key_within": instead('"role": ', '"role": "user", "role": '),
    "half_a_pair": instead('"answer": "', '"answer": "\\ud83d'),
    "bad_escape": instead('"answer": "', '"answer": "\\x \\u12'),
    "long_number": instead('"answer": ', f'"answer": {"9" * 5000}, "was": '),
}
FOR_BINARIES = ("cut", "flipped", "dropped", "zeros", "twice")
ENDINGS = ("json", "csv", "txt", "xlsx", "parquet", "docx", "pdf")


def broken_texts(r: random.Random) -> Iterator[tuple[str, str, bytes]]:
    """Yield (mutation, ending, content)."""
    for kind, text in TEXTS.items():
        for name, mutate in MUTATIONS.items():
            yield name, kind, mutate(text.encode(), r)
        for codec in ("gb18030", "utf-16", "utf-16-be", "big5"):
            data = text.encode(codec, "ignore")
            yield f"cut_{codec}", kind, cut(data, r)
            yield f"flipped_{codec}", kind, flip_bytes(data, r)


def broken_binaries(r: random.Random) -> Iterator[tuple[str, str, bytes]]:
    """Yield (mutation, ending, content)."""
    for kind, build in BINARIES.items():
        data = build()
        for name in FOR_BINARIES:
            yield name, kind, MUTATIONS[name](data, r)


def misnamed(r: random.Random) -> Iterator[tuple[str, str, bytes]]:
    """Yield (what it is, ending, content)."""
    contents = {kind: text.encode() for kind, text in TEXTS.items()}
    contents |= {kind: build() for kind, build in BINARIES.items()}
    contents |= {"zip": b"PK\x03\x04" + r.randbytes(200), "noise": r.randbytes(2000)}
    contents |= {"blank": b" \r\n\0 \n", "mark": b"\xef\xbb\xbf"}
    for kind, data in contents.items():
        for ending in ENDINGS:
            if not kind.endswith(ending):
                yield f"{kind}_renamed", ending, data


def make(folder: Path, seed: int = SEED) -> list[Path]:
    """Write the corpus into ``folder``: some hundred files named by mutation and kind."""
    r = random.Random(seed)
    made: list[Path] = []
    for name, ending, data in chain(broken_texts(r), broken_binaries(r), misnamed(r)):
        path = folder / f"{len(made):03}_{name}.{ending}"
        path.write_bytes(data)
        made.append(path)
    return made


def make_huge(folder: Path, size: int = HUGE) -> list[Path]:
    """Write files with ``size`` bytes in one line or in one row, whole and broken."""
    text = "长，" * (size // 6)
    row = dumped({"question": "多长？", "answer": text})
    good = dumped({"question": "问", "answer": "答"})
    files = {
        "huge.jsonl": f"{good}\n{row}\n{good}\n",
        "huge_broken.jsonl": f"{good}\n{row[:-2]}\n{good}\n",
        "huge.json": f"[{good},{row},{good}]",
        "huge_open.json": f"[{good},{row[:-2]},{good}]",
        "huge_open.csv": f'question,answer\na,b\n"{text}\nc,d\n',
        "huge_quotes.csv": "question,answer\n" + '"a","b\n' * (size // 400),
        "huge_nested.json": "[" + '{"a":\n' * (size // 6),
        "huge.txt": text,
    }
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8", newline="")
    return [folder / name for name in files]
