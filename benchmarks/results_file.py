"""Adding a line to a benchmark's table of results."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def add_line(path: Path, line: Mapping[str, Any], columns: Sequence[str] | None = None) -> None:
    """Append ``line`` to the CSV file at ``path``; a new one begins with the columns' names."""
    path.parent.mkdir(exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, columns or list(line))
        if new:
            writer.writeheader()
        writer.writerow(line)
