"""How many held-out titles got a poem of the asked form: base, tuned, and the real poems.

    python benchmarks/poem_form.py runs/poems

The asked form is in the instruction: 五言绝句 or 七言绝句, four lines of five or seven
characters, a comma after the odd lines and a full stop (？ or ！ will do) after the even ones.
"""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

HAN = r"[\u3400-\u9fff\U00020000-\U000323af]"
CHARACTERS = {"五言绝句": 5, "七言绝句": 7}


def has_form(text: str, characters: int) -> bool:
    """Say whether ``text`` is a quatrain of ``characters`` to the line, punctuation included."""
    line = f"{HAN}{{{characters}}}"
    return re.fullmatch(f"(?:{line}[，；？！、]{line}[。？！；]){{2}}", text.strip()) is not None


def asked_form(row: dict[str, Any]) -> int | None:
    """Return the characters to the line that the question asks for."""
    question = " ".join(content for role, content in row["prompt"] if role == "user")
    return next((n for name, n in CHARACTERS.items() if name in question), None)


def share(rows: list[dict[str, Any]], text_of: Callable[[dict[str, Any]], str]) -> str:
    """Return ``184 of 200 (92.0%)``."""
    asked = [(asked_form(row), text_of(row)) for row in rows]
    asked_for = [(n, text) for n, text in asked if n is not None]
    good = sum(has_form(text, n) for n, text in asked_for)
    return f"{good} of {len(asked_for)} ({100 * good / max(1, len(asked_for)):.1f}%)"


def main() -> None:
    """Print one line for each of base, tuned and the poets."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("run", type=Path)
    folder = arguments.parse_args().run / "evaluation"
    for name in ("base", "tuned"):
        lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines if line]
        print(f"{name:10} {share(rows, lambda row: row['answer'])}")
    print(f"{'reference':10} {share(rows, lambda row: row['reference'])}")


if __name__ == "__main__":
    main()
