"""More rows from few: other wordings, and drafts from passages, each with its parent."""

from weitiao.records.growing.drafts import GROUNDED, draft
from weitiao.records.growing.gate import BOUNDS, Bounds
from weitiao.records.growing.grow import METHODS, GrowReject, Rows, grow
from weitiao.records.growing.method import Method
from weitiao.records.growing.rewording import back_translation, paraphrase
from weitiao.records.growing.synonyms import synonyms
from weitiao.records.growing.thesaurus import CILIN, Thesaurus, load_thesaurus
from weitiao.records.growing.write import Grown, write_drafts, write_grown

__all__ = [
    "BOUNDS",
    "CILIN",
    "GROUNDED",
    "METHODS",
    "Bounds",
    "GrowReject",
    "Grown",
    "Method",
    "Rows",
    "Thesaurus",
    "back_translation",
    "draft",
    "grow",
    "load_thesaurus",
    "paraphrase",
    "synonyms",
    "write_drafts",
    "write_grown",
]
