"""The one catalogue of everything a user reads, in English and Chinese.

Each ``*.toml`` beside this file holds entries ``[key]`` with ``en`` and ``zh``;
values are filled in with :meth:`str.format`. A test holds that every key used in
the code exists, that no key is unused, and that both languages name the same values.
"""

import locale
import os
import tomllib
from collections.abc import Mapping
from contextvars import ContextVar
from functools import cache
from importlib import resources
from typing import Literal, cast

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")

_current: ContextVar[Language | None] = ContextVar("weitiao_language", default=None)


def from_environment(environ: Mapping[str, str] | None = None) -> Language:
    """Return the language of the locale: ``WEITIAO_LANG`` first, then LC_ALL, LC_MESSAGES, LANG."""
    env = os.environ if environ is None else environ
    for name in ("WEITIAO_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        if value := env.get(name):
            return "zh" if value.lower().startswith("zh") else "en"
    if environ is None and (locale.getlocale()[0] or "").lower().startswith(("zh", "chinese")):
        return "zh"
    return "en"


def set_language(language: Language) -> None:
    """Speak ``language`` from here on, in this context."""
    _current.set(language)


def language() -> Language:
    """Return the language spoken now."""
    return _current.get() or from_environment()


@cache
def catalogue() -> dict[str, dict[str, str]]:
    """Return key → {"en": …, "zh": …}, read from the ``*.toml`` files of this folder."""
    entries: dict[str, dict[str, str]] = {}
    for path in sorted(resources.files(__name__).iterdir(), key=lambda p: p.name):
        if path.name.endswith(".toml"):
            for key, entry in _flatten(tomllib.loads(path.read_text(encoding="utf-8"))):
                if key in entries:
                    raise ValueError(f"{path.name}: the key {key} stands in two files")
                entries[key] = entry
    return entries


def _flatten(table: Mapping[str, object], prefix: str = "") -> list[tuple[str, dict[str, str]]]:
    found: list[tuple[str, dict[str, str]]] = []
    for name, value in table.items():
        if isinstance(value, Mapping):
            if set(value) <= set(LANGUAGES):
                found.append((prefix + name, cast("dict[str, str]", dict(value))))
            else:
                found.extend(_flatten(value, f"{prefix}{name}."))
    return found


def say(key: str, in_language: Language | None = None, /, **values: object) -> str:
    """Return the catalogue's sentence for ``key`` with ``values`` filled in.

    Raises:
        KeyError: the key is not in the catalogue (a defect of ours, found by a test).
    """
    return catalogue()[key][in_language or language()].format(**values)
