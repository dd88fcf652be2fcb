"""Whatever a file holds: no error but a DataError, no hang, and no row unaccounted for."""

import time
from pathlib import Path

import pytest
from broken import SEED, make, make_huge

from weitiao.errors import DataError
from weitiao.records.reading import FileRead, RawRow, read_file, readable

SECONDS = 5


def outcome(path: Path) -> tuple[FileRead, list[RawRow]] | None:
    """The rows of a file, or None if it cannot be read, of which a sentence tells."""
    begun = time.monotonic()
    try:
        read = read_file(path)
        rows = list(read.rows)
    except DataError as error:
        for language in ("en", "zh"):
            sentence = error.sentence(language)
            assert path.name in sentence
            assert "\n" not in sentence
        return None
    assert time.monotonic() - begun < SECONDS
    return read, rows


def check_row(row: RawRow, read: FileRead) -> None:
    assert row.origin.file.startswith(read.path.name)
    assert row.origin.line >= 1
    if row.problem is None:
        assert isinstance(row.data, dict)
        assert row.raw == b""
    else:
        assert row.data is None
        assert row.problem.sentence("zh")
        assert row.problem.hint("en")
        assert isinstance(row.raw, bytes)
        readable(row.raw, read.encoding.name).encode()


def check_lines(path: Path, rows: list[RawRow], one_line: bool) -> None:
    """Each line that is not blank is a row's, and stands as it was where the row is broken."""
    data = path.read_bytes()
    alone = b"\n" not in data
    lines = data.splitlines(keepends=True) if alone or not one_line else data.split(b"\n")
    begins = [row.line for row in rows]
    assert begins == sorted(set(begins))
    first = 1 if one_line else begins[0]
    used = set()
    for row, end in zip(rows, [*begins[1:], len(lines) + 1], strict=True):
        own = lines[row.line - 1 : row.line if one_line else end - 1]
        used |= set(range(row.line, row.line + 1 if one_line else end))
        if row.problem:
            assert row.raw.rstrip() == b"".join(own).rstrip()
    marks = b"\xef\xbb\xbf"
    for number, line in enumerate(lines, start=1):
        assert number < first or number in used or not line.replace(marks, b"").strip()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make(tmp_path_factory.mktemp("broken"))


def test_the_corpus_is_large_and_always_the_same(corpus, tmp_path):
    assert len(corpus) >= 200
    # Programs write the time into their files: of those a mutation differs from day to day.
    texts = [path for path in corpus if "renamed" not in path.name and path.suffix == ".csv"]
    assert len(texts) > 20
    again = {path.name: path.read_bytes() for path in make(tmp_path, SEED)}
    assert all(again[path.name] == path.read_bytes() for path in texts)


def test_no_broken_file_gives_more_than_a_sentence(corpus):
    read_at_all = kept = 0
    for path in corpus:
        found = outcome(path)
        if found is None:
            continue
        read, rows = found
        read_at_all += 1
        for row in rows:
            check_row(row, read)
            kept += row.data is not None
        if read.kind in ("jsonl", "csv") and read.encoding.name == "utf-8" and rows:
            check_lines(path, rows, read.kind == "jsonl")
    # Most of what can be had is had: a change that gives up early would show here.
    assert read_at_all > 0.85 * len(corpus)
    assert kept > 8500


@pytest.mark.parametrize("size", [2 << 20, pytest.param(50 << 20, marks=pytest.mark.slow)])
def test_one_line_of_many_megabytes(tmp_path, size):
    kept = {}
    for path in make_huge(tmp_path, size):
        begun = time.monotonic()
        try:
            rows = list(read_file(path).rows)
            kept[path.name] = sum(row.data is not None for row in rows)
        except DataError:
            kept[path.name] = 0
        assert time.monotonic() - begun < SECONDS + size / (4 << 20)
    text_passages = kept.pop("huge.txt")
    assert text_passages > size // 6 // 1200
    assert kept == {
        "huge.jsonl": 3,
        "huge_broken.jsonl": 2,
        "huge.json": 3,
        "huge_open.json": 2,
        "huge_open.csv": 2,
        "huge_quotes.csv": 0,
        "huge_nested.json": 0,
    }
