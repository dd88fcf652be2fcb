"""Which texts a chat template passes on as they are, whatever they say.

A template is a program. Most only put texts between markers, but some ask what a text
holds (``'</think>' in content``). Whatever a template can ask of a text, other than its
blanks and its length, it asks by a string that stands in its source: so a text that has
nothing to do with any of these strings is treated like any other such text.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from jinja2 import nodes

_GENERATION_TAG = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")
_ASKS_NOTHING = frozenset(
    [
        "append",
        "count",
        "d",
        "default",
        "first",
        "get",
        "int",
        "items",
        "join",
        "keys",
        "last",
        "length",
        "list",
        "map",
        "raise_exception",
        "range",
        "reverse",
        "safe",
        "strftime_now",
        "string",
        "tojson",
        "values",
    ]
)
_STRIPS = frozenset(("strip", "lstrip", "rstrip", "trim"))
_NAMES = frozenset(("namespace", "dict"))
_ASKS_WHOLE = frozenset(("selectattr", "rejectattr", "select", "reject"))
_CHANGES_CASE = frozenset(("lower", "upper", "casefold", "swapcase", "title", "capitalize"))
BLANKS = ("  ", "\n\n", "\t")
"""What the template does to these, inside a text and around it, is not read from its
questions: :func:`weitiao.records.skeleton.derive` tries it."""

_BOUNDARY = "\0"
_Asking = nodes.Compare | nodes.Call | nodes.Filter | nodes.Test


@dataclass(frozen=True, slots=True)
class Questions:
    """What a template asks of texts: strings they may hold (``parts``), or be (``whole``)."""

    parts: tuple[str, ...]
    whole: str

    def concern(self, texts: Sequence[str]) -> bool:
        """Tell whether the answer to a question may differ for one of ``texts``."""
        together = _BOUNDARY.join(texts)
        return (
            any(part in together for part in self.parts)
            or any(map(self.whole.__contains__, texts))
            or any(map(str.isspace, texts))
        )


def questions_of(template: object) -> Questions | None:
    """Return what the template, or the mapping of name → template, asks of texts.

    None: it cannot be told. An empty text, and one of blanks, always concerns a question.
    """
    sources = template.values() if isinstance(template, Mapping) else (template,)
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    found = _Found()
    try:
        for source in sources:
            found.read(environment.parse(_GENERATION_TAG.sub("", str(source))))
    except jinja2.TemplateSyntaxError:
        return None
    return found.questions()


class _Found:
    """The strings of a template's questions, as they are found."""

    def __init__(self) -> None:
        self.parts: set[str] = set()
        self.whole: set[str] = set()
        self.named: set[str] = set()
        """Strings that get a name, by which they can be asked later."""
        self.asks_by_name = False
        self.unclear = False

    def read(self, tree: nodes.Template) -> None:
        """Take in a template."""
        for compare in tree.find_all(nodes.Compare):
            self._compare(compare)
        for asking in tree.find_all((nodes.Call, nodes.Filter, nodes.Test)):
            self._asking(asking)
        given = [assign.node for assign in tree.find_all(nodes.Assign)]
        for value in (*given, *(loop.iter for loop in tree.find_all(nodes.For))):
            self.named |= {*_strings(value), *_joined(value)}
        for block in tree.find_all(nodes.AssignBlock):
            self.named |= {data.data for data in block.find_all(nodes.TemplateData)}
        for macro in tree.find_all(nodes.Macro):
            self.named |= {string for value in macro.defaults for string in _strings(value)}

    def questions(self) -> Questions | None:
        """Return all that was found."""
        if self.unclear:
            return None
        parts = self.parts | (self.named if self.asks_by_name else set())
        return Questions(
            tuple(sorted(part for part in parts if not any(part in b for b in BLANKS))),
            _BOUNDARY.join(sorted(self.whole | self.named)),
        )

    def _compare(self, node: nodes.Compare) -> None:
        left: nodes.Node = node.expr
        for operand in node.ops:
            right = operand.expr
            strings = {*_strings(left), *_strings(right)}
            if operand.op in ("in", "notin"):
                within = not isinstance(right, (nodes.Const, nodes.List, nodes.Tuple))
                self.asks_by_name |= within and not isinstance(left, nodes.Const)
                whole = not within and _is_field(left)
            else:
                whole = all(_is_field(n) or isinstance(n, nodes.Const) for n in (left, right))
                self.unclear |= operand.op not in ("eq", "ne") and bool(strings)
            (self.whole if whole else self.parts).update(strings)
            left = right

    def _asking(self, node: nodes.Expr) -> None:
        name, asked = _asked(node)
        strings = set(_strings_of_arguments(node))
        if name in _CHANGES_CASE:
            self.unclear |= isinstance(node, nodes.Test) or _last_field(asked) != "role"
        elif isinstance(node, nodes.Test) or name in _ASKS_WHOLE:
            self.whole |= strings
        elif name in _NAMES:
            self.named |= strings
        elif name in _STRIPS:
            self.parts |= {sign for string in strings for sign in string}
        elif name not in _ASKS_NOTHING:
            self.parts |= strings


def _asked(node: Any) -> tuple[str, nodes.Node | None]:
    """Return the name of what is called, and the value it is called on."""
    if not isinstance(node, nodes.Call):
        return node.name, node.node
    if isinstance(node.node, nodes.Getattr):
        return node.node.attr, node.node.node
    return getattr(node.node, "name", ""), None


def _last_field(node: nodes.Node | None) -> str | None:
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr):
        return node.attr
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        return node.arg.value if isinstance(node.arg.value, str) else None
    return None


def _is_field(node: nodes.Node) -> bool:
    """Tell whether a node is a value by its name: no part of a text, and nothing made of it."""
    return _last_field(node) is not None


def _strings_of_arguments(node: Any) -> Iterator[str]:
    for argument in (*(node.args or ()), *(keyword.value for keyword in node.kwargs or ())):
        yield from _strings(argument)


def _joined(node: nodes.Node) -> Iterator[str]:
    """Yield the text that a node of nothing but constants is."""
    try:
        value = node.as_const() if isinstance(node, nodes.Expr) else None
    except nodes.Impossible:
        return
    if isinstance(value, str):
        yield value


def _strings(node: nodes.Node) -> Iterator[str]:
    """Yield the strings in a node, but not those of the questions inside it."""
    if isinstance(node, nodes.Const) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, nodes.Getitem):
        yield from _strings(node.node)
    elif not isinstance(node, _Asking):
        for child in node.iter_child_nodes():
            yield from _strings(child)
