"""How many held-out titles got a poem of the asked form, rhyme and tones: base, tuned, poets.

    python benchmarks/poem_form.py runs/poems

The asked form is in the instruction: 五言绝句 or 七言绝句. Form, rhyme and tones are read as
the suite `poetry` reads them (the extra `poems`); an answer without the form has none of them.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from weitiao.evaluation.poems import read_poem

CHARACTERS = {"五言绝句": 5, "七言绝句": 7}


def asked_form(row: dict[str, Any]) -> int | None:
    """Return the characters to the line that the question asks for."""
    question = " ".join(content for role, content in row["prompt"] if role == "user")
    return next((n for name, n in CHARACTERS.items() if name in question), None)


def summary(rows: list[dict[str, Any]], text_of: Callable[[dict[str, Any]], str]) -> str:
    """Return ``184 of 200 (92.0%) have the form; rhyme 81.0%, …``, shares of all asked for."""
    asked = [(asked_form(row), read_poem(text_of(row))) for row in rows]
    count = max(1, sum(length is not None for length, _ in asked))
    good = [p for n, p in asked if n is not None and p.length == n and len(p.lines) == 4]
    shares = {
        "rhyme": sum(p.rhyming or 0 for p in good),
        "tones": sum(p.tones or 0 for p in good),
        "links": sum(p.links or 0 for p in good),
        "no fault": sum(not any(f.fault for f in p.findings) for p in good),
    }
    told = ", ".join(f"{name} {100 * share / count:.1f}%" for name, share in shares.items())
    return f"{len(good)} of {count} ({100 * len(good) / count:.1f}%) have the form; {told}"


def main() -> None:
    """Print one line for each of base, tuned and the poets."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("run", type=Path)
    folder = arguments.parse_args().run / "evaluation"
    for name in ("base", "tuned"):
        lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines if line]
        print(f"{name:10} {summary(rows, lambda row: row['answer'])}")
    print(f"{'reference':10} {summary(rows, lambda row: row['reference'])}")


if __name__ == "__main__":
    main()
