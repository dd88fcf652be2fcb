"""The comparison as one self-contained page, in the look of a run's report."""

from pathlib import Path

from markupsafe import Markup

from weitiao.errors import RunError
from weitiao.evaluation.comparing import present
from weitiao.evaluation.comparing.runs import RunsCompared
from weitiao.evaluation.report.template import page_environment
from weitiao.records.files import write_atomic
from weitiao.words import language

MARK = '<meta name="generator" content="weitiao compare">'
"""Stands in the head of each page, which a later comparison may replace."""

_HEAD = 4096


def write_page(found: RunsCompared, path: Path) -> None:
    """Write the page; it opens in the language spoken now, changes at a click, loads nothing.

    Raises:
        RunError: something else is there already, or the page cannot be written.
    """
    if path.exists() and not _is_ours(path):
        raise RunError("error.compare_not_ours", path=path)
    environment = page_environment("weitiao.evaluation.comparing")
    page = environment.get_template("page.html.jinja").render(
        found=found,
        mark=Markup(MARK),
        language=language(),
        present=present,
    )
    write_atomic(path, page)


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as there:
            return MARK.encode() in there.read(_HEAD)
    except OSError:
        return False
