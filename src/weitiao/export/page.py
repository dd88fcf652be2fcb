"""All forms of a model on one self-contained page."""

from collections.abc import Sequence
from pathlib import Path

from weitiao.evaluation.report.template import page_environment
from weitiao.export import present
from weitiao.export.parity import Parity
from weitiao.records.files import write_atomic
from weitiao.words import language


def write_page(title: str, machine: str, found: Sequence[Parity], path: Path) -> None:
    """Write the page; it opens in the language spoken now, changes at a click, loads nothing.

    Raises:
        RunError: the page cannot be written.
    """
    environment = page_environment("weitiao.export")
    page = environment.get_template("page.html.jinja").render(
        title=title,
        machine=machine,
        found=found,
        language=language(),
        present=present,
    )
    write_atomic(path, page)
