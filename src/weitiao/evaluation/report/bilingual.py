"""Sentences that stand on the page in both languages, of which it shows one."""

from collections.abc import Callable
from typing import Any

from markupsafe import Markup, escape

from weitiao.words import say


def in_both(speak: Callable[..., str], *values: Any) -> Markup:
    """Return what ``speak(*values, language)`` says in both languages; the page shows one."""
    english, chinese = speak(*values, "en"), speak(*values, "zh")
    if english == chinese:
        return escape(english)
    return Markup(
        '<span class="en" lang="en">{}</span><span class="zh" lang="zh">{}</span>'
    ).format(english, chinese)


def said(key: str, **values: object) -> Markup:
    """Return the catalogue's sentence for ``key`` in both languages."""
    return in_both(lambda spoken: say(key, spoken, **values))
