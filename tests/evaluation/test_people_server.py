"""The server of the page: who may ask, what it takes, and that it names no side before the end."""

import http.client
import json
import re
import threading

import pytest

from people_runs import people_run
from weitiao.api import people
from weitiao.errors import RunError
from weitiao.evaluation.people.review import Asked

PAGE = "1" * 32


@pytest.fixture
def run(tmp_path):
    return people_run(tmp_path / "tea", 4)


@pytest.fixture
def server(run):
    with people.reviewing([run], people.match([run]), 0) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def send(server, method, path, body=b"", **headers):
    asking = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
    given = {
        "X-Weitiao-Token": server.token,
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }
    asking.request(method, path, body, given)
    reply = asking.getresponse()
    return reply.status, reply.headers, reply.read().decode()


def ask(server, action, **asked):
    status, _, body = send(server, "POST", f"/api/{action}", json.dumps({"session": PAGE, **asked}))
    return status, json.loads(body or "{}")


def test_only_the_page_that_was_opened_here_may_ask(server):
    body = json.dumps({"session": PAGE, "name": "Li"})
    port = server.server_port
    for headers in (
        {"X_Weitiao_Token": ""},
        {"X_Weitiao_Token": "é"},
        {"Host": f"evil.example:{port}"},
        {"Host": "127.0.0.1"},
    ):
        status, _, said = send(server, "POST", "/api/join", body, **headers)
        assert status == 403, headers
        assert "weitiao review" in json.loads(said)["zh"]
    assert send(server, "GET", "/", Host="evil.example")[0] == 403
    assert send(server, "POST", "/api/join", body, Host=f"localhost:{port}")[0] == 200


def test_no_path_reaches_the_disk_and_no_body_is_too_much(server, run):
    for path in (
        "/../review.sqlite",
        "/page.html",
        "/%2e%2e/x",
        "/..%2f",
        "//etc/passwd",
        "/words",
    ):
        assert send(server, "GET", path)[0] == 404, path
    assert send(server, "POST", "/api/__init__", b"{}")[0] == 404
    assert send(server, "POST", "/api/join", b"{}", Content_Length=str(10**9))[0] == 413
    assert send(server, "POST", "/api/join", b"{}", Content_Length="-1")[0] == 413
    assert send(server, "PUT", "/api/join", b"{}")[0] == 501
    for body in (
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"session": 3}',
        json.dumps({"session": PAGE, "name": "x" * 61}),
    ):
        assert send(server, "POST", "/api/join", body)[0] == 400, body
    assert ask(server, "vote", better="both")[0] == 400


def test_the_page_may_load_nothing_from_elsewhere(server):
    status, headers, page = send(server, "GET", "/")
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "http" not in page
    assert not re.search(r" (style|on\w+)=", page)
    assert server.token not in page
    assert server.address.endswith(f"#{server.token}")


def test_every_word_that_the_page_says_is_given_to_it(server):
    given = json.loads(send(server, "GET", "/words.json")[2])["words"]
    page, script = (send(server, "GET", path)[2] for path in ("/", "/page.js"))
    wanted = set(re.findall(r'data-word="(\w+)"', page)) | set(re.findall(r'say\("(\w+)"', script))
    wanted |= {"user", "assistant", "system", "tool", "yes", "no", "to_settle", "none_disputed"}
    wanted |= {"correct", "helpful", "suitable"}
    assert set(given["en"]) == set(given["zh"]) == wanted


def test_nothing_says_whose_an_answer_is_before_the_end(server, run):
    heard = [send(server, "GET", path)[2] for path in ("/", "/page.js", "/words.json")]
    ask(server, "join", name="Li")
    rows = ask(server, "list")[1]["rows"]
    assert len(rows) == 4
    for row in rows:
        heard.append(json.dumps(ask(server, "row", row=row["id"])[1]))
        assert ask(server, "results")[0] == 409
        heard.append(json.dumps(ask(server, "vote", row=row["id"], better="b")[1]))
        heard.append(json.dumps(ask(server, "row", row=row["id"])[1]))
    for text in heard:
        assert re.search(r"base|tuned|微调[前后]|\btea\b|\"(one|other)\"", text) is None, text
    assert "tuned" in json.dumps(ask(server, "results")[1])


def test_two_pages_cannot_be_one_reviewer_unless_that_is_said(server):
    assert ask(server, "join", name="Li")[0] == 200
    status, said = ask(server, "join", name="Li", session="2" * 32)
    assert (status, said["error"]) == (409, "people_same_name")
    assert ask(server, "join", name="Li", session="2" * 32, take_over=True)[0] == 200
    status, said = ask(server, "list")
    assert (status, said["error"]) == (409, "people_elsewhere")


def test_names_are_free_again_when_the_program_ends(run):
    matched = people.match([run])
    for session in (PAGE, "2" * 32):
        with people.reviewing([run], matched, 0) as made:
            made.actions["/api/join"](Asked(session, "Li"))


def test_a_port_that_is_taken_is_said(server, run):
    with (
        pytest.raises(RunError, match="taken by another program"),
        people.reviewing([run], people.match([run]), server.server_port),
    ):
        pass
