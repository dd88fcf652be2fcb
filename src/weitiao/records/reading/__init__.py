"""From a user's file to its rows: what kind it is, how it is encoded, and each row's place."""

from weitiao.records.reading.files import (
    CONVERSATION_COLUMNS,
    KINDS,
    FileRead,
    Kind,
    RawRow,
    Stretch,
    find_files,
    read_file,
    readable,
    unread_files,
)

__all__ = [
    "CONVERSATION_COLUMNS",
    "KINDS",
    "FileRead",
    "Kind",
    "RawRow",
    "Stretch",
    "find_files",
    "read_file",
    "readable",
    "unread_files",
]
