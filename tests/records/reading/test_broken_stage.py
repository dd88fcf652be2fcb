"""The corpus of broken files through the whole stage: every row accounted for, or one sentence."""

import base64
import json
import time
from pathlib import Path

from broken import make

from weitiao.errors import DataError
from weitiao.events import EventLog
from weitiao.records.options import DataOptions
from weitiao.records.prepare import check, prepare
from weitiao.records.reading import read_file

SILENT = EventLog()
LANGUAGES = ("en", "zh")
SLOWEST = 20.0
"""Seconds of the processor for one small file: nothing hangs, on whatever machine."""


def test_every_broken_file_is_accounted_for(tmp_path, letters):
    told: list[tuple[Path, DataError]] = []
    kept = 0
    corpus = make(tmp_path)
    assert len(corpus) >= 200
    for path in corpus:
        began = time.process_time()
        try:
            checked = check(path, DataOptions(max_tokens=4096), letters, SILENT)
        except DataError as error:
            told.append((path, error))
            continue
        report = checked.report
        kept += 1
        assert report.kept + report.rejected == report.rows
        assert report.rows == len(list(read_file(path).rows)), path
        assert len(checked.records) == report.kept
        assert len(checked.rejected) == report.rejected
        assert sorted(i for rows in checked.split.values() for i in rows) == list(
            range(report.kept)
        )
        assert all(
            row.reason.sentence(language) for row in checked.rejected for language in LANGUAGES
        )
        assert time.process_time() - began < SLOWEST, path
    assert min(len(told), kept) > 20, "the corpus is all of one kind"
    for path, error in told:
        for language in LANGUAGES:
            assert path.stem in error.sentence(language)
            assert "\n" not in error.sentence(language).strip()


def test_what_cannot_be_read_is_kept_byte_for_byte(tmp_path, letters):
    good = '{"prompt": "问", "response": "答"}'.encode()
    broken = [
        b'{"prompt": "\xd2\xf8\xd0\xd0", "response": "a"}',
        b'{"prompt": "cut',
        '{"prompt": "\u2028", "response": "a"'.encode(),
        b'{"prompt": "a", "prompt": "b", "response": "c"}',
        b"\0\0\0",
        b'\xef\xbb\xbf{"prompt": 1',
    ]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([good, *broken]) + b"\r\n")
    prepare(path, tmp_path / "out", DataOptions(), letters, SILENT)
    rejected = [json.loads(line) for line in (tmp_path / "out/rejected.jsonl").open("rb")]
    found = [
        base64.b64decode(row["base64"]) if "base64" in row else row["row"].encode()
        for row in rejected
    ]
    assert found == broken
