"""From a row as it stood to a record, and from records to the files of other tools."""

from weitiao.records.shaping.shapes import Shape, detect_shape, to_record

__all__ = ["Shape", "detect_shape", "to_record"]
