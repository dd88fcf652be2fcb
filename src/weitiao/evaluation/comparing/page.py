"""The comparison as one self-contained page, in the look of a run's report."""

from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from weitiao import __version__
from weitiao.errors import RunError
from weitiao.evaluation.comparing import present
from weitiao.evaluation.comparing.runs import RunsCompared
from weitiao.records.files import write_atomic
from weitiao.words import LANGUAGES, language, say

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
    environment = Environment(
        loader=PackageLoader("weitiao.evaluation.comparing", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = (resources.files("weitiao.evaluation.report") / "page.css").read_text(encoding="utf-8")
    page = environment.get_template("page.html.jinja").render(
        found=found,
        css=Markup(css),
        mark=Markup(MARK),
        language=language(),
        languages=LANGUAGES,
        present=present,
        say=say,
        version=__version__,
    )
    write_atomic(path, page)


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as there:
            return MARK.encode() in there.read(_HEAD)
    except OSError:
        return False
