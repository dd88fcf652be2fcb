"""Rows by themselves: the quick way and the plain one, on one process and on several."""

import operator
import unicodedata
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weitiao.events import EventLog
from weitiao.records import prepare as stage_of_files
from weitiao.records import processes
from weitiao.records.folding import folded, folded_all
from weitiao.records.options import BalanceOptions, CleanOptions, DataOptions, SimilarOptions
from weitiao.records.prepare import check
from weitiao.records.processes import in_order
from weitiao.records.reading import RawRow
from weitiao.records.review import find_votes
from weitiao.records.shaping import Shape
from weitiao.records.stage import Block, Stage

SILENT = EventLog()
NOTHING_CLEANED = CleanOptions(mojibake=False, normalise=False, private="ignore", flags=False)
EXCHANGE = Shape("exchange", {"prompt": "ask", "response": "answer"})

TEXTS = st.one_of(
    st.text(alphabet="问答，：？！；（）ａＢ＜ abAB<[\n\u3000\u200b~～ﾊﾟㄱé\u0301", max_size=12),
    st.text(max_size=8).filter(lambda text: text.isprintable() or text == ""),
    st.sampled_from(["", " ", "\n", "<think>\n</think>", "<|im_end|>", "好", "good"]),
)
ROWS = st.lists(
    st.one_of(
        st.fixed_dictionaries({"ask": TEXTS, "answer": TEXTS}),
        st.fixed_dictionaries({"ask": TEXTS, "answer": TEXTS, "kind": st.sampled_from("ab")}),
        st.fixed_dictionaries({"ask": TEXTS, "answer": st.sampled_from([None, 3, ["x"]])}),
        st.fixed_dictionaries({"answer": TEXTS}),
        st.none(),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(ROWS)
def test_the_quick_way_comes_to_the_same(rows):
    raw = [RawRow("a.jsonl", n, row, raw=b"{") for n, row in enumerate(rows, start=1)]
    options = DataOptions(clean=NOTHING_CLEANED, balance=BalanceOptions(by="kind"))
    stage = Stage(options, None, find_votes(Path("none"), REVIEW))
    block = Block(raw, EXCHANGE, "utf-8")
    assert stage._untouched
    quick = stage(block)
    stage._untouched = False
    assert quick == stage(block)


REVIEW = DataOptions().review


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_folding_is_nfkc_without_case_and_blanks(text):
    assert folded(text) == "".join(unicodedata.normalize("NFKC", text).casefold().split())


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXTS | st.just("\x01"), min_size=1, max_size=6))
def test_folding_together_is_folding_one_by_one(texts):
    assert folded_all(texts) == [folded(text) for text in texts]


def made_file(folder: Path, rows: int) -> Path:
    path = folder / "many.jsonl"
    lines = []
    for i in range(rows):
        answer = "" if i % 50 == 7 else f"回答 {i % 150}，说得很清楚。"
        lines.append(f'{{"prompt": "第 {i % 100} 个问题", "response": "{answer}"}}')
    lines[5] = '{"prompt": "broken'
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("clean", [NOTHING_CLEANED, CleanOptions()])
def test_several_processes_come_to_the_same(tmp_path, monkeypatch, letters, clean):
    path = made_file(tmp_path, 3000)
    options = DataOptions(clean=clean, similar=SimilarOptions(near="ignore", leakage=False))
    monkeypatch.setattr(stage_of_files, "_BLOCK_ROWS", 500)
    one = check(path, options, None, SILENT)
    monkeypatch.setattr(stage_of_files, "_BYTES_FOR_PROCESSES", 0)
    several = check(path, options, None, SILENT)
    assert several.report == one.report
    assert several.split == one.split
    assert list(several.records) == list(one.records)
    assert list(several.rejected) == list(one.rejected)
    assert one.report.reasons.keys() == {"duplicate", "empty_answer", "broken_json"}


def test_what_fails_in_another_process_is_told_here():
    divide = (partial, (operator.floordiv, 6))
    assert list(in_order(*divide, [1, 2, 3, 4], 2)) == [6, 3, 2, 1]
    with pytest.raises(ZeroDivisionError):
        list(in_order(*divide, [1, 0, 2], 2))


def test_the_numbers_of_a_block_are_kept(letters):
    row = {"ask": "问", "answer": "答" * 20}
    stage = Stage(DataOptions(max_tokens=64), letters, find_votes(Path("none"), REVIEW))
    done = stage(Block([RawRow("a", 1, row)], EXCHANGE, "utf-8"))
    kept = done.kept
    assert [*zip(kept.samples, kept.tokens, kept.shortened, strict=True)] == [(1, 41, 0)]


def test_what_a_dead_helper_had_in_hand_is_done_here(monkeypatch):
    begun: list[processes._Helper] = []
    give = processes._Helper.give

    def give_and_kill(helper, number, task):
        give(helper, number, task)
        begun.append(helper)
        helper._process.kill()
        helper._process.wait()

    monkeypatch.setattr(processes._Helper, "give", give_and_kill)
    assert list(in_order(partial, (operator.floordiv, 6), [1, 2, 3, 4], 1)) == [6, 3, 2, 1]
    assert len(begun) == 1
