"""From a user's file to its rows: what kind it is, how it is encoded, and each row's place."""

from weitiao.records.reading.files import FileRead, find_files, read_file, unread_files
from weitiao.records.reading.jsonl import Stretch
from weitiao.records.reading.kinds import KINDS, Kind
from weitiao.records.reading.rows import CONVERSATION_COLUMNS, RawRow, readable

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
