"""What is counted while the rows go by, and the examples that show it."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

EXAMPLES = 5
"""Examples kept of each step, flag and reason."""

CATEGORY_VALUES = 50
"""A column with more different values is no category."""


@dataclass(slots=True)
class Findings:
    """What was found on the way: counts, and the first few examples of each name.

    ``kinds`` counts conversations with ``reasoning`` and without (``conversation``), and
    rows whose last turns are ``unanswered``.

    Examples are (origin, text) of a flag, and (origin, before, after) of a step.
    """

    steps: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    grown: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    categories: dict[str, Counter[str] | None] = field(default_factory=dict)
    examples: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)

    def example(self, name: str, *values: Any) -> None:
        """Keep an example of ``name`` while there are few."""
        found = self.examples.setdefault(name, [])
        if len(found) < EXAMPLES:
            found.append(values)

    def add(self, other: "Findings") -> None:
        """Take in what another block found."""
        for counted in ("steps", "flags", "languages", "grown", "verdicts", "kinds"):
            getattr(self, counted).update(getattr(other, counted))
        for name, examples in other.examples.items():
            for example in examples:
                self.example(name, *example)
        for column, values in other.categories.items():
            self.count_values(column, values)

    def count_value(self, column: str, value: str) -> None:
        """Count a value of a column that may be a category."""
        known = self.categories.setdefault(column, Counter())
        if known is not None:
            known[value] += 1
            if len(known) > CATEGORY_VALUES:
                self.categories[column] = None

    def count_values(self, column: str, values: Counter[str] | None) -> None:
        """Count a column's values; one with many is no category, and is None from then on."""
        known = self.categories.setdefault(column, Counter())
        if known is None or values is None:
            self.categories[column] = None
            return
        known.update(values)
        if len(known) > CATEGORY_VALUES:
            self.categories[column] = None
