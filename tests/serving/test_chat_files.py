"""What the chat page is made of and how it is served; the page itself: tests/browser."""

import re
from importlib import resources
from pathlib import Path

import fastapi
import pytest
from starlette.testclient import TestClient

from weitiao.serving.web.page import _WORDS, add_page
from weitiao.words import LANGUAGES, catalogue

SOURCES = Path(__file__).parents[2] / "frontend" / "src"
MOST_BYTES = 150_000
PATHS = ("/", "/ui/page.js", "/ui/page.css", "/ui/icon.svg", "/ui/words.json")


@pytest.fixture(scope="module")
def client():
    app = fastapi.FastAPI()
    add_page(app)
    return TestClient(app)


@pytest.mark.parametrize("path", PATHS)
def test_each_file_comes_with_a_strict_policy_and_is_not_sent_twice(client, path):
    reply = client.get(path)
    assert reply.status_code == 200
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["cache-control"] == "no-cache"
    again = client.get(path, headers={"If-None-Match": reply.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(path, headers={"If-None-Match": '"old"'}).content == reply.content
    assert client.head(path).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/ui/", "/ui/../page.py", "/ui/%2e%2e/page.py", "/ui/..%2fpage.py", "/page.py", "/licences.md",
     "/ui//etc/passwd", "/index.html"],
)  # fmt: skip
def test_nothing_else_is_served(client, path):
    assert client.get(path).status_code == 404


def test_the_page_loads_nothing_but_its_own_files(client):
    named = re.findall(r'(?:src|href)="([^"]+)"', client.get("/").text)
    assert sorted(named) == ["./ui/icon.svg", "./ui/page.css", "./ui/page.js"]
    assert "url(" not in client.get("/ui/page.css").text
    assert "sourceMappingURL" not in client.get("/ui/page.js").text


def test_what_is_committed_is_small_and_names_the_licences():
    built = Path(str(resources.files("weitiao.serving.web") / "built"))
    files = [path for path in built.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    licences = (built / "licences.md").read_text(encoding="utf-8")
    assert all(name in licences for name in ("svelte", "marked", "eventsource-parser"))


def test_the_words_are_those_of_the_catalogue_and_of_the_sources(client):
    told = client.get("/ui/words.json").json()
    assert set(told) == set(LANGUAGES)
    in_catalogue = {
        key.removeprefix("chat.page.") for key in catalogue() if key.startswith("chat.page.")
    }
    assert set(told["en"]) == set(told["zh"]) == set(_WORDS) == in_catalogue
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES.iterdir())
    said = set(re.findall(r'say\("(\w+)"', text))
    assert len(said) > 40, "the search finds next to nothing: it is broken"
    assert said <= in_catalogue
    # Some are put together: say(`role_${role}`), say(`${name}_hint`), say(name).
    quoted = set(re.findall(r'"(\w+)"', text))
    whole = {word.removeprefix("role_").removesuffix("_hint") for word in in_catalogue - quoted}
    assert whole <= quoted
