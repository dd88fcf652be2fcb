import errno
import os

import pytest

from weitiao.errors import RunError
from weitiao.records.files import open_atomic, write_atomic


def test_a_file_appears_whole_in_a_new_folder(tmp_path):
    path = tmp_path / "new" / "数据.json"
    write_atomic(path, "你好")
    assert path.read_text("utf-8") == "你好"
    write_atomic(path, b"\xff")
    assert path.read_bytes() == b"\xff"
    assert [p.name for p in path.parent.iterdir()] == ["数据.json"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, "old")
    with pytest.raises(KeyError), open_atomic(path) as out:  # noqa: PT012
        out.write(b"half")
        raise KeyError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_is_one_sentence_and_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError) as caught:
        write_atomic(path, "new")
    assert caught.value.key == "error.disk_full"
    assert str(path) in caught.value.sentence("zh")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RunError) as caught:
        write_atomic(tmp_path / "file" / "inner", "x")
    assert caught.value.key == "error.cannot_write"


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    write_atomic(tmp_path / "file", "x")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask
