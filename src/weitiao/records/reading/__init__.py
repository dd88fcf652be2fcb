"""From a user's file to its rows: what kind it is, how it is encoded, and each row's place."""

from weitiao.records.reading.files import (
    KINDS,
    FileRead,
    Kind,
    RawRow,
    find_files,
    read_file,
)

__all__ = ["KINDS", "FileRead", "Kind", "RawRow", "find_files", "read_file"]
