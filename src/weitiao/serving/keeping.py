"""What a server keeps of its requests, each option declared once."""

from typing import Literal

from pydantic import Field

from weitiao.records.options import Options

CacheForm = Literal["off", "exact", "normalised"]
LogForm = Literal["off", "meta", "full"]


class KeepOptions(Options):
    """The memory of answers, and the log of requests."""

    cache: CacheForm = "exact"
    """Answer repeated questions from memory: exact, or normalised (letter case, blanks, widths and
    end punctuation make no difference, even where they would have made one to the model)."""

    cache_sampled: bool = False
    """Remember answers that were drawn at random, too: the same question gets the same answer, even
    with a temperature above 0 and no seed. Other sampling settings make it another question."""

    cache_url: str | None = Field(default=None, pattern=r"^rediss?://", repr=False)
    """A Redis server to remember answers in, such as redis://localhost:6379/0, not in a file."""

    cache_megabytes: int = Field(default=256, ge=1)
    """The largest memory of answers; the longest unused go first. Redis has its own maxmemory."""

    cache_days: float = Field(default=30, gt=0, le=36500)
    """Days after which an answer is forgotten."""

    log: LogForm = "meta"
    """What is written down of requests: nothing, times and counts, or questions and answers too."""

    log_sample: float = Field(default=1, ge=0, le=1)
    """The share of requests that is written down, drawn at random; those with feedback are all."""

    log_days: float = Field(default=30, gt=0, le=36500)
    """Days after which a request is deleted; one with feedback stays until you delete it."""
