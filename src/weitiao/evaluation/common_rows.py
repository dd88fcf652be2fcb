"""Rows that two sets of answers have in common, whoever answered them."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from weitiao.errors import RunError
from weitiao.evaluation.answers import Answered, read_answers


def kept_answers(path: Path) -> list[Answered]:
    """Return the answers of a file in a run's ``evaluation``.

    Raises:
        RunError: the file is missing or holds no answers.
    """
    try:
        found = read_answers(path)
    except OSError:
        found = []
    if found:
        return found
    # Where all is measured, weitiao eval would see nothing to do.
    results = path.with_name("results.json")
    key = "error.people_answers_lost" if results.exists() else "error.people_no_answers"
    raise RunError(key, path=path, results=results, run=path.parent.parent)


def asked_answers(path: Path) -> list[Answered]:
    """Return the answers of a file; a passage for continued pretraining asks nothing.

    Raises:
        RunError: the file is missing, or holds no answers or none to a question.
    """
    asked = [answered for answered in kept_answers(path) if answered.prompt]
    if not asked:
        raise RunError("error.people_passages", path=path)
    return asked


def in_common(
    one: Sequence[Answered], other: Sequence[Answered], names: tuple[str, str]
) -> list[tuple[Answered, Answered]]:
    """Pair the answers to the same question with the same reference, in the order of ``one``.

    Raises:
        RunError: nothing was asked of both.
    """
    waiting = defaultdict(list)
    for answered in other:
        waiting[answered.prompt, answered.reference].append(answered)
    pairs = []
    for answered in one:
        if same := waiting[answered.prompt, answered.reference]:
            pairs.append((answered, same.pop(0)))
    if not pairs:
        raise RunError("error.people_no_common", one=names[0], other=names[1])
    return pairs
