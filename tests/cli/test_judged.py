"""A judge from the command line: refused at the start, broken off, gone on with."""

import json
from pathlib import Path

import pytest

from chat_service import Reply, serving
from conftest import QUICK, Weitiao, one_sentence
from weitiao import endpoint as client

FAST = (*QUICK, "evaluate.rows=4", "forgetting=0", "memorising=0", "speed=false")
VOTE = json.dumps(
    {
        **{side: {"correct": 3, "helpful": 3, "readers": 3} for side in "AB"},
        "winner": "tie",
    }
)


def test_a_judge_that_cannot_be_asked_is_told_before_anything_is_trained(
    weitiao: Weitiao, data: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = ("eval", data, "--model", tiny_base, *FAST, "evaluate.judge.enabled=true")
    assert "endpoint.url" in one_sentence(weitiao(*words))
    there = ("endpoint.url=http://localhost:1/v1", "endpoint.model=m")
    assert "max_requests" in one_sentence(weitiao(*words, *there, "endpoint.max_requests=7"))
    assert not (data.parent / "runs").exists()


def test_a_judge_that_fails_leaves_the_results_and_is_gone_on_with(
    weitiao: Weitiao, data: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.01)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = data.parent / "runs/tea"
    measured = weitiao("eval", data, "--model", tiny_base, *FAST)
    assert measured.code == 0, measured.err
    with serving(lambda asked: Reply(b"no", 401)) as service:
        judged = ("evaluate.judge.enabled=true", f"endpoint.url={service.url}", "endpoint.model=m")
        said = weitiao("eval", "runs/tea", "--resume", *judged)
    assert said.code == 0, said.err
    assert "weitiao eval" in said.out
    assert "--resume" in said.out
    assert "Traceback" not in said.out + said.err
    assert not (run / "evaluation/judge.json").exists()
    with serving(lambda asked: VOTE) as service:
        there = f"endpoint.url={service.url}"
        said = weitiao("eval", "runs/tea", "--resume", there)
        assert said.code == 0, said.err
        assert "8 requests" in said.out
        assert "tied 4" in said.out
        assert len(service.requests) == 8
        assert weitiao("eval", "runs/tea").code == 0
        assert len(service.requests) == 8, "what is judged is not judged again"
    assert json.loads((run / "evaluation/judge.json").read_text())["ties"] == 4
    for name in ("judge.json", "base.jsonl"):
        (run / "evaluation" / name).unlink()
    said = weitiao("eval", "runs/tea")
    assert said.code == 0, said.err
    assert "base.jsonl is missing" in said.out


def test_a_row_that_got_no_answer_is_asked_again_when_gone_on_with(
    weitiao: Weitiao, data: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    refused: list[object] = []

    def one_refused(asked: dict[str, object]) -> Reply | str:
        if not refused:
            refused.append(asked["messages"])
        return Reply(b"no", 400) if asked["messages"] == refused[0] else VOTE

    with serving(one_refused) as service:
        judged = ("evaluate.judge.enabled=true", f"endpoint.url={service.url}", "endpoint.model=m")
        said = weitiao("eval", data, "--model", tiny_base, *FAST, *judged)
        assert said.code == 0, said.err
        assert "1 rows are left out" in said.out
        asked = len(service.requests)
        assert weitiao("eval", "runs/tea").code == 0
        assert len(service.requests) == asked, "nobody asked for it"
        refused[:] = [None]
        said = weitiao("eval", "runs/tea", "--resume")
        assert said.code == 0, said.err
        assert len(service.requests) == asked + 2, "both orders of that row"
        assert "tied 4" in said.out
