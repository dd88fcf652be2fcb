"""The one YAML loader: plain data, and the line and column of everything in it."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from weitiao.errors import RecipeError
from weitiao.words import say

KeyPath = tuple[str | int, ...]
"""Where a value is: keys and list places from the top, such as ``("train", "lora", "rank")``."""

OptionsModel = TypeVar("OptionsModel", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Position:
    """(line, column), both counted from 1, of a key and of the value that belongs to it."""

    key: tuple[int, int]
    value: tuple[int, int]


Positions = dict[KeyPath, Position]


@dataclass(frozen=True, slots=True)
class Source:
    """Where the values came from, for error messages: a file, and arguments that override it."""

    name: str
    positions: Mapping[KeyPath, Position] = field(default_factory=dict)
    arguments: Mapping[KeyPath, str] = field(default_factory=dict)

    def where(self, path: KeyPath, of_key: bool = False) -> str:
        """Return ``recipe.yaml:7:5`` or the argument as it was typed."""
        for size in range(len(path), 0, -1):
            if argument := self.arguments.get(path[:size]):
                return argument
            if position := self.positions.get(path[:size]):
                line, column = position.key if of_key else position.value
                return f"{self.name}:{line}:{column}"
        return self.name


def load_yaml(
    path: Path, kind: Literal["recipe", "suite"] = "recipe"
) -> tuple[dict[str, Any], Positions]:
    """Return the mapping in ``path`` as plain data, and the position of each of its values.

    ``kind``: what the file is to be, for error messages.

    YAML 1.2: ``2e-4`` is a number, ``no`` a word; dates stay text, keys are always text.

    Raises:
        RecipeError: the file is missing or not YAML, or a key stands twice; every
            duplicate is named in one error.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as cause:
        names = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        near = ", ".join(get_close_matches(path.name, names))
        key = f"error.yaml_missing_near.{kind}" if near else f"error.yaml_missing.{kind}"
        raise RecipeError(key, path=path, near=near) from cause
    except (OSError, UnicodeDecodeError) as cause:
        raise RecipeError(f"error.yaml_not_text.{kind}", path=path) from cause
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> tuple[dict[str, Any], Positions]:
    """Return what :func:`load_yaml` returns, for YAML at hand; errors call it ``name``."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    reader = _Reader(name, YAML(typ="safe", pure=True))
    try:
        data = reader.read(text)
    except MarkedYAMLError as cause:
        mark = cause.problem_mark or cause.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        if mark and text.splitlines()[mark.line : mark.line + 1] and "'\\t'" in str(cause.problem):
            raise RecipeError("error.yaml_tab", where=where) from cause
        raise RecipeError("error.yaml_syntax", where=where, why=cause.problem) from cause
    except YAMLError as cause:
        why = str(cause).splitlines()[0]
        raise RecipeError("error.yaml_syntax", where=name, why=why) from cause
    if reader.problems:
        raise RecipeError("error.recipe_problems", problems="\n".join(reader.problems))
    return data, reader.positions


class _Reader:
    """Walks the nodes of one document; ruamel's own constructor would stop at the first fault."""

    def __init__(self, name: str, yaml: Any) -> None:
        self.name = name
        self.yaml = yaml
        self.positions: Positions = {}
        self.problems: list[str] = []
        self.open_nodes: set[int] = set()

    def read(self, text: str) -> dict[str, Any]:
        """Return the document's mapping; an empty document is an empty mapping."""
        node = self.yaml.compose(text)
        if node is None:
            return {}
        data = self._value(node, ())
        if isinstance(data, dict):
            return data
        if data is not None:
            self.problems.append(say("error.yaml_not_mapping", where=self._place(node)))
        return {}

    def _value(self, node: Any, path: KeyPath) -> Any:
        if id(node) in self.open_nodes:
            self.problems.append(say("error.yaml_loop", where=self._place(node)))
            return None
        self.open_nodes.add(id(node))
        try:
            if node.id == "mapping":
                return self._mapping(node, path)
            if node.id == "sequence":
                return [self._item(child, (*path, i)) for i, child in enumerate(node.value)]
            if str(node.tag).endswith(":timestamp"):
                return node.value
            return self.yaml.constructor.construct_object(node)
        finally:
            self.open_nodes.discard(id(node))

    def _mapping(self, node: Any, path: KeyPath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            here = (*path, key)
            if key in found:
                first = self.positions[here].key[0]
                self.problems.append(
                    say(
                        "error.yaml_duplicate",
                        where=self._place(key_node),
                        key=dotted(here),
                        first=first,
                    )
                )
                continue
            self.positions[here] = Position(_line_column(key_node), _line_column(value_node))
            found[key] = self._value(value_node, here)
        return found

    def _item(self, node: Any, path: KeyPath) -> Any:
        self.positions[path] = Position(_line_column(node), _line_column(node))
        return self._value(node, path)

    def _place(self, node: Any) -> str:
        line, column = _line_column(node)
        return f"{self.name}:{line}:{column}"


def _line_column(node: Any) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def dotted(path: KeyPath) -> str:
    """Return ``train.lora.rank``."""
    return ".".join(str(part) for part in path)


def validated(
    kind: type[OptionsModel],
    data: Mapping[str, Any],
    source: Source,
    problems: Sequence[str] = (),
) -> OptionsModel:
    """Return ``data`` as a ``kind``; types are taken strictly (``"3"`` is no number).

    ``problems`` are sentences about faults found before, told together with those found here.

    Raises:
        RecipeError: one sentence for each unknown key, wrong type and value out of range.
    """
    try:
        # As JSON, strictness lets a list stand for a tuple and 1 for 1.0, as YAML's users mean.
        options = kind.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        told = [*problems, *_sentences(error, kind, data, source)]
        raise RecipeError("error.recipe_problems", problems="\n".join(told)) from error
    if problems:
        raise RecipeError("error.recipe_problems", problems="\n".join(problems))
    return options


def _sentences(
    error: ValidationError, kind: type[BaseModel], data: Mapping[str, Any], source: Source
) -> Iterator[str]:
    """Yield one sentence for each faulty place; the branches of a union are told as one."""
    expected: dict[KeyPath, list[str]] = {}
    unknown: set[KeyPath] = set()
    for fault in error.errors(include_url=False, include_context=True):
        path = _path_in(data, fault["loc"])
        wanted = expected.setdefault(path, [])
        if fault["type"] == "extra_forbidden" or fault["loc"][-1:] == ("[key]",):
            unknown.add(path)
        phrase = _expected(fault["type"], fault.get("ctx", {}), fault["msg"])
        if phrase not in wanted:
            wanted.append(phrase)
    for path, wanted in expected.items():
        if path in unknown:
            near = _near_key(path, kind)
            key = "error.yaml_unknown_key_near" if near else "error.yaml_unknown_key"
            yield say(key, where=source.where(path, of_key=True), key=dotted(path), near=near)
        else:
            shown = json.dumps(_value_at(data, path), ensure_ascii=False)
            yield say(
                "error.yaml_wrong_value",
                where=source.where(path),
                key=dotted(path),
                expected=say("expected.or").join(wanted),
                value=shown if len(shown) <= 60 else f"{shown[:57]}…",
            )


def _path_in(data: Any, loc: KeyPath) -> KeyPath:
    """Leave out of pydantic's ``loc`` the names of union branches, which are not in the data."""
    path: list[str | int] = []
    for part in loc:
        in_list = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if in_list or (isinstance(data, dict) and part in data):
            path.append(part)
            data = data[part]
    return tuple(path)


def _value_at(data: Any, path: KeyPath) -> Any:
    for part in path:
        data = data[part]
    return data


_EXPECTED = {
    "int": "expected.whole_number",
    "float": "expected.number",
    "finite": "expected.number",
    "bool": "expected.bool",
    "string": "expected.text",
    "string_too_short": "expected.some_text",
    "list": "expected.list",
    "tuple": "expected.list",
    "dict": "expected.group",
    "model": "expected.group",
    "greater_than": "expected.more",
    "greater_than_equal": "expected.at_least",
    "less_than": "expected.less",
    "less_than_equal": "expected.at_most",
    "too_short": "expected.items_min",
    "too_long": "expected.items_max",
    "missing": "expected.more_items",
}
"""The phrase for pydantic's error types, by the whole name or by its first word."""


def _expected(kind: str, context: Mapping[str, Any], message: str) -> str:
    if kind == "literal_error":
        choices = ", ".join(re.findall(r"'([^']*)'", str(context["expected"])))
        return say("expected.one_of", choices=choices)
    key = _EXPECTED.get(kind) or _EXPECTED.get(kind.split("_")[0])
    if key is None:
        return message
    bounds = ("gt", "ge", "lt", "le", "min_length", "max_length")
    bound = next((context[name] for name in bounds if name in context), "")
    return say(key, bound=f"{bound:g}" if isinstance(bound, int | float) else bound)


def option_paths(kind: type[BaseModel], above: KeyPath = ()) -> list[KeyPath]:
    """Return the path of every option of ``kind``, groups of options left out."""
    found: list[KeyPath] = []
    for name, info in kind.model_fields.items():
        group = info.annotation
        if isinstance(group, type) and issubclass(group, BaseModel):
            found.extend(option_paths(group, (*above, name)))
        else:
            found.append((*above, name))
    return found


def _near_key(path: KeyPath, kind: type[BaseModel]) -> str:
    """Return the key that was probably meant: beside ``path`` first, then anywhere."""
    paths = option_paths(kind)
    name, parent = str(path[-1]), path[:-1]
    beside = {str(p[len(parent)]) for p in paths if p[: len(parent)] == parent and p != parent}
    if near := get_close_matches(name, sorted(beside), n=1):
        return near[0]
    leaves: dict[str, list[str]] = {}
    for known in paths:
        leaves.setdefault(str(known[-1]), []).append(dotted(known))
    elsewhere = get_close_matches(name, sorted(leaves), n=1)
    return ", ".join(leaves[elsewhere[0]]) if elsewhere else ""
