"""The order of the rooms, read from the imports of every file."""

import ast
from pathlib import Path

import pytest

import weitiao

SOURCE = Path(weitiao.__file__).parent
PLACE = {room: place for place, group in enumerate(weitiao.ROOM_ORDER) for room in group}
DATA_ONLY = {"examples"}
"""Rooms that import nothing of weitiao and that nothing imports."""


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_modules(tree: ast.AST, package: str) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{package}: relative import"
            module = node.module or ""
            found += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return found


def rooms_imported(tree: ast.AST, name: str) -> set[str]:
    modules = (module.split(".") for module in imported_modules(tree, name))
    return {parts[1] for parts in modules if parts[0] == "weitiao" and len(parts) > 1}


def misplaced(tree: ast.AST, room: str) -> list[str]:
    """Rooms that ``room`` must not import: to its right, beside it, or data only."""
    others = rooms_imported(tree, room) - {room, "__version__", "ROOM_ORDER"}
    return [other for other in others if PLACE.get(other, len(PLACE)) >= PLACE[room]]


FILES = [p for p in SOURCE.rglob("*.py") if p != SOURCE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_room_imports_only_rooms_to_its_left(path: Path) -> None:
    tree, room = ast.parse(path.read_text(encoding="utf-8")), room_of(path)
    if room in DATA_ONLY:
        assert rooms_imported(tree, room) <= {room}
    else:
        assert misplaced(tree, room) == [], path


def test_the_rule_can_be_broken() -> None:
    assert misplaced(ast.parse("from weitiao.training.loop import train"), "models")
    assert misplaced(ast.parse("from weitiao import training"), "evaluation")
    assert misplaced(ast.parse("import weitiao.examples.bank"), "api")
    assert not misplaced(ast.parse("from weitiao.models import flat"), "training")


def test_every_folder_is_a_room() -> None:
    rooms = {room_of(p) for p in FILES}
    assert rooms - DATA_ONLY == set(PLACE)


def test_records_never_imports_torch() -> None:
    for path in (SOURCE / "records").rglob("*.py"):
        modules = imported_modules(ast.parse(path.read_text(encoding="utf-8")), path.name)
        assert not {m.split(".")[0] for m in modules} & {"torch", "transformers", "peft"}, path


def test_only_the_right_rooms_name_torch_at_import() -> None:
    """``weitiao.api`` and the doors import nothing heavy before a verb needs it."""
    for path in [
        *(SOURCE / "runs").glob("*.py"),
        *(p for r in ("api", "cli") for p in (SOURCE / r).glob("*.py")),
    ]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top = ast.Module(
            [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)], type_ignores=[]
        )
        assert not {m.split(".")[0] for m in imported_modules(top, path.name)} & {
            "torch", "transformers", "peft",
        }, path  # fmt: skip
