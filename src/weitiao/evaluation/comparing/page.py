"""The comparison as one self-contained page, in the look of a run's report."""

from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from weitiao import __version__
from weitiao.evaluation.comparing import present
from weitiao.evaluation.comparing.runs import RunsCompared
from weitiao.records.files import write_atomic
from weitiao.words import LANGUAGES, language, say


def write_page(found: RunsCompared, path: Path) -> None:
    """Write the page; it opens in the language spoken now, changes at a click, loads nothing.

    Raises:
        RunError: the page cannot be written.
    """
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
        language=language(),
        languages=LANGUAGES,
        present=present,
        say=say,
        version=__version__,
    )
    write_atomic(path, page)
