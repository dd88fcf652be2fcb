"""The options of this room, each declared once; help, schema and form are derived from here."""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from weitiao.errors import DataError

TARGETS = ("prompt", "response", "system", "context")
"""What a column can become; the keys of ``DataOptions.columns``."""

PrivateKind = Literal["id_number", "phone", "bank_card", "email", "address"]

Reasoning = Literal["learn", "context", "drop"]
"""What becomes of the reasoning (``<think>…</think>``) before an answer."""

FlagName = Literal[
    "language_mix",
    "repeats_prompt",
    "refusal",
    "unfinished",
    "unbalanced_quotes",
    "broken_json",
    "profanity",
]

Ratio = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Options(BaseModel):
    """The base of every group of options: frozen, unknown keys refused, docstrings as help."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class EndpointOptions(Options):
    """A service that speaks OpenAI's protocol, for growing data and judging answers."""

    url: str | None = None
    """Where it is, such as http://localhost:8000/v1; without it nothing leaves this machine."""

    model: str | None = None
    """The model to ask there."""

    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the key; the key itself never stands in a file."""

    max_requests: int = Field(default=1000, ge=1)
    """The most requests one command may send."""

    parallel: int = Field(default=4, ge=1, le=64)
    """Requests under way at the same time."""

    timeout: float = Field(default=120, gt=0)
    """Seconds to wait for one answer."""


class CleanOptions(Options):
    """What is repaired, looked for and changed in each row; the user's files stay as they are."""

    mojibake: bool = True
    """Repair UTF-8 text that was saved after being read as GBK (锟斤拷 and the like)."""

    normalise: bool = True
    """Take out control and zero-width characters and needless white space."""

    width: Literal["keep", "convert"] = "keep"
    """convert writes full-width letters and digits in half width; Chinese punctuation stays."""

    script: Literal["keep", "simplified", "traditional"] = "keep"
    """The Chinese script to write everything in."""

    private: Literal["ignore", "report", "mask", "reject"] = "report"
    """What happens to ID numbers, phones, bank cards, e-mail, addresses in texts; columns stay."""

    private_kinds: tuple[PrivateKind, ...] = get_args(PrivateKind)
    """Which kinds of private data are looked for."""

    flags: bool = True
    """Look for signs of bad rows, such as refusals and unfinished sentences, and report them."""

    reject_flags: tuple[FlagName, ...] = ()
    """Rows with one of these flags are rejected rather than reported."""

    word_lists: tuple[str, ...] = ()
    """Files of words, one a line; rows that hold one are flagged as profanity."""

    spelling: bool = False
    """Suggest corrections of likely misspellings; nothing is changed."""

    confusions: str | None = None
    """A file of your own confusions, one a line: what was written, a tab, what was meant."""

    first_turns: int | None = Field(default=None, ge=1)
    """Keep only this many question-and-answer turns from a conversation's start."""

    last_turns: int | None = Field(default=None, ge=1)
    """Keep only this many question-and-answer turns before a conversation's end."""

    system_turn: Literal["keep", "drop", "replace"] = "keep"
    """drop leaves out the rows' own system prompts; replace puts data.system in their place."""


class SimilarOptions(Options):
    """Rows that say nearly the same."""

    near: Literal["ignore", "report", "reject"] = "report"
    """What happens to near duplicates: all but one of each cluster can be rejected."""

    threshold: float = Field(default=0.85, gt=0.5, le=1)
    """From which similarity on (Jaccard, of character n-grams) two rows are near duplicates."""

    compare: Literal["prompt", "answer", "both"] = "both"
    """What is compared: the prompts, the answers, or the whole row."""

    keep_rule: Literal["first", "longest", "newest", "best_reviewed"] = "first"
    """Which row of a cluster is kept."""

    time_column: str | None = None
    """The column of dates for keep_rule=newest; without it, the later row is the newer one."""

    leakage: bool = True
    """Keep near duplicates, by prompt or by answer, in the same part of the split."""


class BalanceOptions(Options):
    """How many training rows each kind gets."""

    by: str | None = None
    """The column whose values are balanced."""

    cap: int | None = Field(default=None, ge=1)
    """The most training rows of one value; the others are rejected."""

    weights: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Value → how often its training rows are repeated: 2 twice, 1.5 every other row twice."""

    temperature: float | None = Field(default=None, ge=1)
    """Even the values out by repeating rows: shares become shares ** (1 / temperature)."""


class ReviewOptions(Options):
    """What people decided about the rows."""

    file: str | None = None
    """The file of decisions that weitiao data review wrote; beside the data it is found."""

    agreement: float = Field(default=0.6, ge=0, le=1)
    """The share of reviewers that must agree on a row; rows below it are held back."""

    required: bool = False
    """Hold back rows that nobody has reviewed."""


class DataOptions(Options):
    """How a data file is read, cleaned, checked, shortened, balanced and split."""

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

    reasoning: Reasoning = "learn"
    """Reasoning (<think>) is learnt with its answer, only read as context, or dropped from rows."""

    passage_chars: int = Field(default=1200, ge=50)
    """The longest passage, in characters, into which a document is split."""

    grown: Literal["keep", "drop"] = "keep"
    """drop leaves out all rows that weitiao data grow made."""

    mix: dict[str, Annotated[float, Field(gt=0, lt=1)]] = {}
    """File → its share of the training rows, drawn at random: general data against forgetting."""

    clean: CleanOptions = CleanOptions()
    """What is repaired, looked for and changed in each row."""

    similar: SimilarOptions = SimilarOptions()
    """Rows that say nearly the same."""

    balance: BalanceOptions = BalanceOptions()
    """How many training rows each kind gets."""

    review: ReviewOptions = ReviewOptions()
    """What people decided about the rows."""


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
