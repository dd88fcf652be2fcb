"""From a row as it stood to a record, and from records to the files of other tools."""

from weitiao.records.shaping.formats import Format
from weitiao.records.shaping.registry import Entry, registry_entry
from weitiao.records.shaping.rows import Reader, reader_of, to_record
from weitiao.records.shaping.shapes import Shape, detect_shape
from weitiao.records.shaping.writing import Written, write

__all__ = [
    "Entry",
    "Format",
    "Reader",
    "Shape",
    "Written",
    "detect_shape",
    "reader_of",
    "registry_entry",
    "to_record",
    "write",
]
