"""Requests about jobs, and what is told of one."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from weitiao.serving.bodies import let_others
from weitiao.serving.jobs.document import kinds
from weitiao.serving.jobs.store import Job, Kind, State
from weitiao.serving.wire import ChatMessage, SamplingFields
from weitiao.words import Language, say

T = TypeVar("T")
# In a thread pydantic holds up the event loop all the same, from one call of Python code to the
# next. And of thousands that are wrong only the first is told.
_Many = Annotated[list[Annotated[T, BeforeValidator(let_others)]], Field(fail_fast=True)]


class EvaluationRow(BaseModel):
    """A question with the answer that is wanted."""

    model_config = ConfigDict(strict=True, extra="ignore", use_attribute_docstrings=True)

    custom_id: str | None = None
    """Told again with the result."""

    messages: list[ChatMessage] | None = Field(default=None, min_length=1)
    """The conversation; without a reference, its last turn is the answer that is wanted."""

    prompt: str | None = None
    """The question; or give messages."""

    reference: str | None = None
    """The answer that is wanted."""


class JobRequest(SamplingFields):
    """Work to be done. The fields of sampling hold for all of it; a request's own go first."""

    kind: Kind
    """batch asks requests, dialogue asks turns one after another, evaluation scores rows."""

    requests: _Many[str | dict[str, Any]] | str | None = None
    """For batch: questions, or OpenAI's requests with custom_id; a text is read as JSONL."""

    turns: _Many[str] | None = None
    """For dialogue: what the user says, turn by turn."""

    system: str | None = None
    """For dialogue: the system prompt; without it, the model's own."""

    rows: _Many[dict[str, Any]] | str | None = None
    """For evaluation: messages or prompt, with reference; a text is read as JSONL."""

    suite: str | None = None
    """For evaluation: which scores, by the name of one of our suites."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Tell also what each kind needs, which is looked at by asks_of."""

        def shown(model: type[BaseModel]) -> dict[str, Any]:
            return handler.resolve_ref_schema(handler(model.__pydantic_core_schema__))

        told = handler(core)
        handler.resolve_ref_schema(told).update(kinds(shown, EvaluationRow))
        return told


class Progress(BaseModel):
    """How far it is: ``failed`` of ``done`` items were refused, as their results tell."""

    done: int
    total: int
    failed: int


class Reason(BaseModel):
    """Why a job failed."""

    code: str
    message: str


class JobTold(BaseModel):
    """A job. Times are seconds since 1970; ``scores`` is an evaluation's table."""

    id: str
    object: Literal["job"]
    kind: Kind
    state: State
    model: str | None
    progress: Progress
    created: int
    started: int | None
    ended: int | None
    attempts: int
    error: Reason | None
    scores: dict[str, Any] | None


class JobList(BaseModel):
    """The last jobs, the newest first."""

    object: Literal["list"]
    data: list[JobTold]


class Deleted(BaseModel):
    """A job that is no more."""

    id: str
    object: Literal["job"]
    deleted: Literal[True]


def told(job: Job, tongue: Language) -> dict[str, Any]:
    """Return what is told of a job, as :class:`JobTold` has it."""
    error = None
    if job.reason is not None:
        key, values = job.reason
        error = {"code": key.rpartition(".")[2], "message": say(key, tongue, **values)}
    return {
        "id": job.id,
        "object": "job",
        "kind": job.kind,
        "state": job.state,
        "model": job.spec.get("model"),
        "progress": {"done": job.done, "total": job.total, "failed": job.failed},
        "created": int(job.created),
        "started": job.started and int(job.started),
        "ended": job.ended and int(job.ended),
        "attempts": job.attempts,
        "error": error,
        "scores": job.summary,
    }
