"""Rows that two sets of answers have in common, whoever answered them."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from weitiao.errors import RunError
from weitiao.evaluation.answers import Answered, read_answers


def asked_answers(path: Path) -> list[Answered]:
    """Return the answers of a file; a passage for continued pretraining asks nothing.

    Raises:
        RunError: the file holds no answers.
    """
    try:
        found = read_answers(path)
    except OSError as error:
        raise RunError("error.people_no_answers", path=path) from error
    asked = [answered for answered in found if answered.prompt]
    if not asked:
        raise RunError("error.people_no_answers", path=path)
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
