"""Reports of the data stage made up for the page: a rich one, and one with nothing in it."""

from collections.abc import Iterator
from typing import Any

from weitiao.records.report import (
    Balanced,
    Change,
    Cluster,
    DataReport,
    FileReport,
    FlagReport,
    Lengths,
    Note,
    People,
    Place,
    Rejection,
    Similarities,
    StepReport,
)

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>'
FILE = "客服问答.jsonl"


def place(line: int, text: str = "", file: str = FILE) -> Place:
    return Place(file=file, line=line, text=text)


def rejected(line: int, text: str, reason: str, /, **values: Any) -> Rejection:
    return Rejection(place=place(line, text), reason=reason, values=values)


def full_report(**changes: Any) -> DataReport:
    """Return a report in which every part holds something."""
    return DataReport(**{**_counts(), **_findings(), **_kinds(), **changes})


def bare_report(**changes: Any) -> DataReport:
    """Return a report as the first version wrote it: the new parts absent."""
    return DataReport.model_validate(
        {
            "files": [_file("a.json", 3, 3).model_dump()],
            "rows": 3,
            "kept": 3,
            "rejected": 0,
            "reasons": {},
            "shortened": 0,
            "samples": 3,
            "tokens": 90,
            "scored_tokens": 30,
            "lengths": {"min": 20, "p50": 30, "p90": 40, "p99": 40, "max": 40},
            "split": {"train": 3, "val": 0, "test": 0},
            "notes": [],
            **changes,
        }
    )


def empty_report() -> DataReport:
    """Return a report of nothing at all."""
    zeros = {"min": 0, "p50": 0, "p90": 0, "p99": 0, "max": 0}
    return bare_report(
        files=[], rows=0, kept=0, samples=0, tokens=0, scored_tokens=0, lengths=zeros, split={}
    )


def reports_lacking_a_part() -> Iterator[tuple[str, DataReport]]:
    """Return (field, the full report with this field at its default)."""
    for name, field in DataReport.model_fields.items():
        if not field.is_required():
            yield name, full_report(**{name: field.get_default()})


def _file(name: str, rows: int, kept: int, how: str = "valid") -> FileReport:
    return FileReport(
        file=name,
        format="jsonl",
        encoding="utf-8" if how == "valid" else "gb18030",
        how=how,
        shape="alpaca",
        columns={"prompt": "instruction", "input": "input", "response": "output"},
        rows=rows,
        kept=kept,
    )


def _counts() -> dict[str, Any]:
    hist = [2, 64, 310, 890, 1490, 1820, 1650, 1210, 880, 560, 340, 190, 110, 60, 41, 33, 20, 9, 5]
    return {
        "files": (_file(FILE, 9000, 8702), _file("2023年旧数据.csv", 1230, 1162, "reading")),
        "rows": 10230,
        "kept": 9864,
        "rejected": 366,
        "reasons": {"duplicate": 301, "empty_answer": 40, "private_phone": 16, "broken_json": 9},
        "rejections": {
            "duplicate": (
                rejected(88, "我的订单什么时候发货？", "duplicate", file=FILE, line=12),
                rejected(91, HOSTILE, "duplicate", file=FILE, line=13),
                rejected(
                    92, "第三个例子\u200b，有零宽空格\tand a tab", "duplicate", file=FILE, line=1
                ),
                rejected(93, "长" * 900, "duplicate", file=FILE, line=14),
            ),
            "empty_answer": (rejected(701, "请问 退款 要 多久", "empty_answer"),),
            "private_phone": (rejected(5, "我的电话是13812345678", "private_phone"),),
            "broken_json": (rejected(44, '{"instruction": "怎么', "broken_json", column=19),),
        },
        "shortened": 184,
        "samples": 9864,
        "tokens": 1_204_551,
        "scored_tokens": 803_900,
        "lengths": Lengths(min=11, p50=112, p90=260, p99=688, max=1024),
        "limit": 1024,
        "histogram": tuple((54 * (i + 1), rows) for i, rows in enumerate(hist)),
        "split": {"train": 7891, "val": 987, "test": 986},
        "notes": (
            Note(name="unanswered", values={"count": 12}),
            Note(name="read_as", values={"file": "2023年旧数据.csv", "kind": "jsonl"}),
        ),
    }


def _findings() -> dict[str, Any]:
    question = "请问我昨天下的订单什么时候可以发货？"
    return {
        "steps": (
            StepReport(
                name="normalise",
                rows=1203,
                examples=(
                    Change(
                        place=place(7),
                        before="您好\u200b，  请问\xa0怎么退款？ \x07",
                        after="您好，  请问 怎么退款？",
                    ),
                    Change(
                        place=place(19),
                        before="第一行\r\n\r\n\r\n\r\n第二行",
                        after="第一行\n\n第二行",
                    ),
                ),
            ),
            StepReport(
                name="mojibake",
                rows=31,
                examples=(Change(place=place(812), before="鎴戠殑璁㈠崟", after="我的订单"),),
            ),
            StepReport(
                name="private",
                rows=16,
                examples=(
                    Change(
                        place=place(93),
                        before="请打 138****78 找王先生",
                        after="请打 [手机号] 找王先生",
                    ),
                ),
            ),
            StepReport(name="width", rows=0, examples=()),
        ),
        "flags": (
            FlagReport(
                name="refusal",
                rows=77,
                examples=tuple(
                    place(200 + i, "作为一个AI语言模型，我无法回答这个问题") for i in range(5)
                ),
            ),
            FlagReport(
                name="unfinished", rows=12, examples=(place(3, "您可以先登录网站，然后，"),)
            ),
            FlagReport(name="private_phone", rows=41, examples=(place(17, "138****78"),)),
            FlagReport(name="private_email", rows=3, examples=(place(18, "z****m"),)),
        ),
        "similar": Similarities(
            threshold=0.85,
            clusters=112,
            rows=305,
            examples=(
                Cluster(
                    rows=(
                        place(12, question),
                        place(480, question.replace("昨天", "前天")),
                        place(912, question + "谢谢"),
                    ),
                    size=14,
                    similarity=0.868,
                ),
                Cluster(
                    rows=(
                        place(3, "Where is my parcel?"),
                        place(9, "Where is my parcel"[:18] + "!"),
                    ),
                    size=2,
                    similarity=0.94,
                ),
            ),
            contradicting=4,
            contradictions=(
                Cluster(
                    rows=(place(77, "退款要三个工作日"), place(1210, "退款要七个工作日")),
                    size=2,
                    similarity=1.0,
                ),
            ),
            leaks=0,
        ),
    }


def _kinds() -> dict[str, Any]:
    return {
        "languages": {"zh": 9120, "en": 702, "other": 42},
        "categories": {
            "类别": {"发货": 4012, "退款": 3011, "发票": 1500, "投诉": 900, "": 441},
            "source": {f"shop-{i}": 900 - 30 * i for i in range(18)},
        },
        "balance": (
            Balanced(value="发货", before=3210, after=2000),
            Balanced(value="退款", before=2400, after=2000),
            Balanced(value="发票", before=350, after=700),
        ),
        "grown": {"synonyms": 410, "paraphrase": 220, "draft": 80},
        "people": People(
            reviewers={"李雷": 210, "韩梅梅": 180, "Ada": 40},
            accepted=180,
            edited=31,
            rejected=17,
            held_back=9,
            kappa=(("李雷", "韩梅梅", 0.74, 120), ("李雷", "Ada", 0.31, 40)),
        ),
    }
