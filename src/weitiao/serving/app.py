"""The application: OpenAI's protocol, and a few routes of its own, in front of any engine."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, cast

import orjson
from fastapi import APIRouter, Depends, FastAPI, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from weitiao import __version__
from weitiao.serving import asking, replies
from weitiao.serving.answering import seen_of
from weitiao.serving.bodies import LargeBodyRoute
from weitiao.serving.desk import Desk
from weitiao.serving.faults import ErrorBody, RequestError, refusal
from weitiao.serving.front import Front, answer_of
from weitiao.serving.sending import streamed, whole
from weitiao.serving.service import Served, Service
from weitiao.serving.shapes import ChatShape, PlainShape, TextShape
from weitiao.serving.web.page import add_page
from weitiao.serving.wire import ChatRequest, CompletionRequest, GenerateRequest, TokenizeRequest

_REFUSALS = {
    400: "The request is not understood, or is longer than the model's context.",
    401: "The key is missing or unknown.",
    403: "The Host header is none of this computer's names.",
    404: "There is no such model.",
    408: "The body took too long to arrive.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    429: "Too much at once, or too often; Retry-After tells when to come back.",
    500: "A defect of the server.",
    503: "The model is loading, or its engine failed.",
    504: "The deadline has passed.",
}
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
_STREAM = {"text/event-stream": {"schema": _EVENT}}


def create_app(service: Service) -> FastAPI:
    """Return the application; ``state.desk`` of it is what it keeps while it runs.

    Starting it up begins to load the engine, shutting it down closes it.
    """
    desk = Desk(service)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        desk.start()
        try:
            yield
        finally:
            await desk.close()

    # No /docs: its page would load scripts from elsewhere.
    app = FastAPI(
        title="weitiao", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.desk = desk
    app.add_middleware(Front, desk=desk)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _not_found)
    app.include_router(_asking_router(), dependencies=keys_of(app))
    app.include_router(_told_router(), dependencies=keys_of(app))
    app.include_router(_health_router())
    add_page(app)
    return app


def keys_of(app: FastAPI) -> list[Any]:
    """Return what tells in the OpenAPI document that a route needs a key, where it does."""
    return [Security(HTTPBearer(auto_error=False))] if app.state.desk.keys else []


def desk_of(request: Request) -> Desk:
    """Return what the application of a request keeps."""
    return cast("Desk", request.app.state.desk)


def allowed(request: Request) -> None:
    """Count a request that the engine is to answer.

    Raises:
        RequestError: it is not JSON, or one too many.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestError("serve.error.content_type", kind=kind[:100] or "–")
    desk_of(request).rate.take(seen_of(request).asker)


OurDesk = Annotated[Desk, Depends(desk_of)]


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    told: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorBody, "description": _REFUSALS[status]} for status in statuses
    }
    # FastAPI would add 422, which is answered with 400 here.
    return {**told, "4XX": {"model": ErrorBody, "description": "Any other refusal."}}


def _answered(model: type, streams: bool = False) -> dict[int | str, dict[str, Any]]:
    told: dict[str, Any] = {"model": model, "description": "The answer."}
    return {200: {**told, "content": _STREAM} if streams else told, **_refusals(*_REFUSALS)}


def _asking_router() -> APIRouter:
    router = APIRouter(dependencies=[Depends(allowed)], route_class=LargeBodyRoute)

    @router.post("/v1/chat/completions", responses=_answered(replies.ChatCompletion, streams=True))
    async def chat(request: Request, desk: OurDesk, asked: ChatRequest) -> Response:
        """Go on with a conversation."""
        questions = await asking.of_chat(desk, asked)
        shape = ChatShape(questions, bool(asked.logprobs), _tells_usage(asked))
        send = streamed if asked.stream else whole
        return await send(desk, request, questions, shape)

    @router.post("/v1/completions", responses=_answered(replies.Completion, streams=True))
    async def complete(request: Request, desk: OurDesk, asked: CompletionRequest) -> Response:
        """Go on with a text as it is."""
        questions = await asking.of_text(desk, asked)
        echo = _prompts(questions.served, asked) if asked.echo else ()
        shape = TextShape(questions, echo, asked.logprobs is not None, _tells_usage(asked))
        send = streamed if asked.stream else whole
        return await send(desk, request, questions, shape)

    @router.post("/generate", responses=_answered(replies.Generated))
    async def generate(request: Request, desk: OurDesk, asked: GenerateRequest) -> Response:
        """Answer one question."""
        questions = await asking.of_question(desk, asked)
        return await whole(desk, request, questions, PlainShape(questions))

    @router.post("/tokenize", responses=_answered(replies.Tokens))
    async def tokenize(desk: OurDesk, asked: TokenizeRequest) -> Response:
        """Tell the token ids that a conversation or a text becomes, as vLLM does."""
        ids = (await asking.to_tokens(desk, asked)).prompts[0]
        context = desk.service.engine.context
        return _json({"tokens": ids, "count": len(ids), "max_model_len": context})

    return router


def _told_router() -> APIRouter:
    router = APIRouter()

    @router.get(
        "/v1/models",
        responses={200: {"model": replies.ModelList}, **_refusals(401, 403)},
    )
    async def models(desk: OurDesk) -> Response:
        """Tell which models are served."""
        told = [_model(desk, served) for served in desk.service.served]
        return _json({"object": "list", "data": told})

    @router.get(
        "/v1/models/{model:path}",
        responses={200: {"model": replies.Model}, **_refusals(401, 403, 404)},
    )
    async def model(desk: OurDesk, model: str) -> Response:
        """Tell of one model."""
        return _json(_model(desk, desk.find(model)))

    @router.get(
        "/metrics",
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
            **_refusals(401, 403),
        },
    )
    async def metrics(desk: OurDesk) -> Response:
        """Tell the numbers that Prometheus reads."""
        return Response(desk.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def _health_router() -> APIRouter:
    router = APIRouter()

    @router.get("/health", responses={200: {"model": replies.Status}, **_refusals(403)})
    async def health(desk: OurDesk) -> Response:
        """Tell that the server lives."""
        return _json(_status(desk))

    @router.get("/ready", responses={200: {"model": replies.Status}, **_refusals(403, 503)})
    async def ready(desk: OurDesk) -> Response:
        """Tell whether questions can be answered now."""
        desk.check_ready()
        if not await desk.recovered():
            raise RequestError("serve.error.engine", retry_after=5)
        return _json(_status(desk))

    return router


def _tells_usage(asked: ChatRequest | CompletionRequest) -> bool:
    options = asked.stream_options
    return bool(asked.stream and options is not None and options.include_usage)


def _prompts(served: Served, asked: CompletionRequest) -> Sequence[str]:
    given: Any = asked.prompt
    if isinstance(given, str) or isinstance(given[0], int):
        given = [given]
    return [prompt if isinstance(prompt, str) else served.decode(prompt) for prompt in given]


def _model(desk: Desk, served: Served) -> dict[str, Any]:
    defaults = served.defaults
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": served.owned_by,
        "description": served.description,
        "max_model_len": desk.service.engine.context,
        "weitiao": {
            "role": served.role,
            "system": served.system,
            "defaults": {
                "temperature": defaults.temperature,
                "top_p": defaults.top_p,
                "repetition_penalty": defaults.repetition_penalty,
                "max_tokens": defaults.max_new_tokens,
            },
        },
    }


def _status(desk: Desk) -> dict[str, Any]:
    names = [served.name for served in desk.service.served]
    return {"status": "ok", "engine": desk.service.engine.name, "models": names}


def _json(told: dict[str, Any]) -> Response:
    return Response(orjson.dumps(told), media_type="application/json")


def _not_valid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    seen = seen_of(request)
    return answer_of(refusal(error.errors(), error.body, seen.tongue), seen)


def _not_found(request: Request, error: Exception) -> Response:
    """Tell of a route that is not there, or not for this method, or of a body that is no JSON."""
    assert isinstance(error, HTTPException)
    path = f"{request.method} {request.url.path[:100]}"
    if error.status_code == 400:
        told = RequestError("serve.error.json", why=error.detail, place=0)
    elif error.status_code == 405:
        told = RequestError("serve.error.method", path=path)
    else:
        told = RequestError("serve.error.path", path=path)
    response = answer_of(told, seen_of(request))
    response.headers.update(error.headers or {})
    if error.status_code == 405:
        response.headers["allow"] = ", ".join(_methods(request))
    return response


def _methods(request: Request) -> list[str]:
    """Return the methods that an address takes; several routes may share it."""
    scope = {"type": "http", "path": request.scope["path"], "headers": []}
    routes = request.app.router.routes
    return [
        method
        for method in _METHODS
        if any(route.matches({**scope, "method": method})[0] == Match.FULL for route in routes)
    ]
