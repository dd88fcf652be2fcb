"""The options of this room, each declared once; help, schema and form are derived from here."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from weitiao.errors import DataError

TARGETS = ("prompt", "response", "system", "context")
"""What a column can become; the keys of ``DataOptions.columns``."""

Ratio = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Options(BaseModel):
    """The base of every group of options: frozen, unknown keys refused, docstrings as help."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class DataOptions(Options):
    """How a data file is read, checked, shortened and split."""

    path: str | None = None
    """The data file, or a folder of them."""

    columns: dict[Literal["prompt", "response", "system", "context"], str] | None = None
    """Which columns to read, where they are not found by themselves: prompt=ask,response=answer."""

    system: str | None = None
    """A system prompt put before every conversation that has none of its own."""

    encoding: str | None = None
    """The file's encoding, such as gb18030, where the one found by itself is wrong."""

    max_tokens: int = Field(default=1024, ge=16)
    """The longest row in tokens, prompt and answer together."""

    too_long: Literal["shorten", "reject"] = "shorten"
    """What happens to a longer row: its middle is shortened, or the row is rejected."""

    duplicates: Literal["reject", "keep"] = "reject"
    """What happens to a row that says the same as an earlier one."""

    split: tuple[Ratio, Ratio, Ratio] = (8, 1, 1)
    """The shares of training, validation and test rows."""

    group_by: str | None = None
    """A column whose equal values stay in the same part of the split."""

    seed: int = 42
    """The number that decides which rows go to which part."""

    limit: int | None = Field(default=None, ge=1)
    """Read only this many rows from the start of each file; all of them where not given."""

    score_turns: Literal["all", "last"] = "all"
    """Which of the assistant's turns are learnt: all of them, or only the last."""


def parse_columns(text: str) -> dict[str, str]:
    """Return target → column for ``"ask,answer"`` or ``"prompt=ask,response=answer"``.

    Raises:
        DataError: the text is neither two names nor pairs of a known target and a column.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 2 and all(parts) and not any("=" in part for part in parts):
        return {"prompt": parts[0], "response": parts[1]}
    columns: dict[str, str] = {}
    for part in parts:
        target, _, column = (piece.strip() for piece in part.partition("="))
        if target not in TARGETS or not column or target in columns:
            raise DataError("error.columns_unreadable", value=text)
        columns[target] = column
    if not {"prompt", "response"} <= columns.keys():
        raise DataError("error.columns_unreadable", value=text)
    return columns
