"""Any bytes under any name: rows and sentences, nothing else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weitiao.errors import DataError
from weitiao.records.reading import KINDS, lines, read_file, window

PIECES = [
    *(b"{", b"}", b"[", b"]", b'"', b",", b":", b"\n", b"\r", b"\\", b" ", b"\\u", b"\\ud83d"),
    *(b'"a":1', b'{"a":1}', b'{"a":"b"},', b"NaN", b"1", b"null", b"\xef\xbb\xbf", b"\0", b"\xff"),
    *(
        "字，".encode(),
        "字，".encode("gbk"),
        "字，".encode("utf-16-le"),
        "\u2028".encode(),
        b"#",
        b"\t",
    ),
]
BYTES = st.lists(st.sampled_from(PIECES) | st.binary(max_size=3), max_size=30).map(b"".join)
MAGIC = [b"", b"PK\x03\x04", b"PAR1", b"%PDF-1.4", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"\xff\xfe"]


@pytest.mark.parametrize("ending", sorted(KINDS))
@settings(max_examples=40, deadline=None)
@given(data=BYTES, magic=st.sampled_from([b"", b"", b"", *MAGIC]), edge=st.booleans())
def test_no_bytes_make_more_than_rows_and_sentences(tmp_path_factory, ending, data, magic, edge):
    path = tmp_path_factory.getbasetemp() / f"any{ending}"
    path.write_bytes(magic + data)
    with pytest.MonkeyPatch.context() as patch:
        if edge:
            patch.setattr(lines, "BLOCK", 4)
            patch.setattr(window, "_LEAST", 4)
        try:
            rows = list(read_file(path).rows)
        except DataError as error:
            sentence = error.sentence("en")
            rows = []
        else:
            sentence = path.name
    assert path.name in sentence
    for row in rows:
        assert (row.data is None) == (row.problem is not None)
        assert row.problem is None or row.problem.sentence("zh")
        assert row.line >= 1


@settings(max_examples=150, deadline=None)
@given(BYTES)
def test_every_line_of_jsonl_is_a_row_or_blank(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "lines.jsonl"
    path.write_bytes(b'{"a": "' + "字".encode() * 20 + b'"}\n{"a": 2}\n' + data)
    try:
        read = read_file(path, "utf-8")
    except DataError:
        return
    if read.kind != "jsonl":
        return
    by_line = {row.line: row for row in read.rows}
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.decode("utf-8", "replace").removeprefix("\ufeff").strip():
            continue
        row = by_line[number]
        assert row.data is not None or row.raw == line.removesuffix(b"\r")
