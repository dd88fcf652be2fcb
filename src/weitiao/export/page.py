"""All forms of a model on one self-contained page."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from weitiao import __version__
from weitiao.export import present
from weitiao.export.parity import Parity
from weitiao.records.files import write_atomic
from weitiao.words import LANGUAGES, language, say


def write_page(title: str, machine: str, found: Sequence[Parity], path: Path) -> None:
    """Write the page; it opens in the language spoken now, changes at a click, loads nothing.

    Raises:
        RunError: the page cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("weitiao.export", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = (resources.files("weitiao.evaluation.report") / "page.css").read_text(encoding="utf-8")
    page = environment.get_template("page.html.jinja").render(
        title=title,
        machine=machine,
        found=found,
        css=Markup(css),
        language=language(),
        languages=LANGUAGES,
        present=present,
        say=say,
        version=__version__,
    )
    write_atomic(path, page)
