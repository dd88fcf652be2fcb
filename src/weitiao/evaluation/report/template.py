"""What all pages are made with: the templates of a folder, and the look of the report."""

from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from weitiao import __version__
from weitiao.words import LANGUAGES, say


def page_environment(package: str) -> Environment:
    """Return the templates of ``package``, which are given css, version, languages and say."""
    made = Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = (resources.files(__package__) / "page.css").read_text(encoding="utf-8")
    made.globals.update(css=Markup(css), version=__version__, languages=LANGUAGES, say=say)
    return made
