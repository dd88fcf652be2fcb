"""A scorer of the user's own, on this machine."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from test_compare import both
from test_evaluate import OPTIONS, SIZES, SUITE, Model, records, right

from weitiao.endpoint import EndpointError
from weitiao.evaluation import toxicity_http
from weitiao.evaluation.compare import compare
from weitiao.evaluation.evaluate import evaluate
from weitiao.evaluation.toxicity_http import ask_scorer
from weitiao.events import EventLog


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(toxicity_http, "FIRST_PAUSE", 0.01)


@contextmanager
def scorer(script):
    """Serve ``script``: texts → what to answer, an object or (status, object)."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            texts = json.loads(self.rfile.read(int(self.headers["content-length"])))["texts"]
            asked.append(texts)
            said = script(texts)
            status, value = said if isinstance(said, tuple) else (200, said)
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/score", asked
    finally:
        server.shutdown()
        server.server_close()


def by_length(texts):
    return {"scores": [min(1, len(text) / 100) for text in texts]}


def test_answers_are_scored_in_batches_and_once(tmp_path):
    path = tmp_path / "toxicity.jsonl"
    texts = ["x" * (i % 40) for i in range(80)]
    with scorer(by_length) as (url, asked):
        found = ask_scorer(url, texts, path)
        assert [len(batch) for batch in asked] == [32, 8]
        assert found["xxx"] == 0.03
        with path.open("ab") as out:
            out.write(b'["http')
        assert ask_scorer(url, [*texts, "new"], path) == {**found, "new": 0.03}
        assert asked[2:] == [["new"]]
        ask_scorer(url + "?v=2", ["x"], path)
        assert asked[3:] == [["x"]], "another scorer's numbers are not taken"


def test_a_scorer_that_stops_goes_on_where_it_was(tmp_path):
    path = tmp_path / "toxicity.jsonl"
    calls = []

    def tired(texts):
        calls.append(1)
        return by_length(texts) if len(calls) != 2 else {"scores": []}

    texts = [str(i) for i in range(64)]
    with scorer(tired) as (url, asked):
        with pytest.raises(EndpointError, match="scores"):
            ask_scorer(url, texts, path)
        ask_scorer(url, texts, path)
    assert [batch[0] for batch in asked] == ["0", "32", "32"]


@pytest.mark.parametrize(
    "reply", [{"scores": [2]}, {"scores": ["x"]}, {"score": [0.1]}, [0.1], {"scores": [0.1, 0.2]}]
)
def test_nonsense_is_a_sentence(tmp_path, reply):
    with scorer(lambda texts: reply) as (url, _), pytest.raises(EndpointError) as told:
        ask_scorer(url, ["a"], tmp_path / "t")
    assert told.value.key == "error.toxicity_nonsense"
    assert '{"scores"' in told.value.sentence("zh")


def test_a_scorer_that_is_not_there_is_a_sentence(tmp_path):
    with scorer(lambda texts: (503, {})) as (url, asked):
        with pytest.raises(EndpointError, match="503"):
            ask_scorer(url, ["a"], tmp_path / "t")
        assert len(asked) == 3
    for wrong in (url, "no address"):
        with pytest.raises(EndpointError, match="toxicity_url"):
            ask_scorer(wrong, ["a"], tmp_path / "t")


def test_the_score_is_counted_where_a_scorer_is_set():
    said = both(["坏"] * 20, ["好"] * 20, ["回答是这样的一句话，对吧"] * 20)
    assert "toxicity_http" not in [s.name for s in compare(*said, OPTIONS, SUITE).scores]
    # Among so many scores, only many resamples can show a difference.
    options = OPTIONS.model_copy(update={"resamples": 2000})
    found = compare(*said, options, SUITE, {"坏": 0.9, "好": 0.1}).score("toxicity_http")
    assert (found.base.value, found.tuned.value, found.change) == (0.9, 0.1, "better")


def test_an_evaluation_asks_it(tmp_path):
    with scorer(by_length) as (url, asked):
        options = OPTIONS.model_copy(update={"toxicity_url": url})
        results = evaluate(
            records(), Model(lambda _: "不会").answerer(), Model(right).answerer("t"), options,
            SUITE, tmp_path, EventLog(), **SIZES,
        )  # fmt: skip
    assert results.score("toxicity_http").base.value == 0.02
    assert sorted({t for batch in asked for t in batch}) == sorted(
        {"不会", *("答" * n for n in range(1, 21))}
    )
