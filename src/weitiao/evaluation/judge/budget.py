"""What the judge may still spend: each request counts in full before it is sent."""

import threading
from collections.abc import Mapping, Sequence
from math import ceil, copysign, inf
from typing import Any

from weitiao.endpoint import Answer, Endpoint
from weitiao.errors import RecipeError
from weitiao.plan.evaluate_options import JudgeOptions

REPLY_TOKENS = 120
"""About what a reply takes: ten numbers in JSON and a sentence."""

_LONGEST, _SHORTEST = 4096, 2 * REPLY_TOKENS
"""What a reply may take where there is a cap, with what the model thinks before it; and the least
that is worth asking with."""

_MESSAGE_TOKENS = 64
"""What the model's template puts around a message, amply."""

_OTHER_LIMIT = "max_completion_tokens"
"""OpenAI's newer models refuse ``max_tokens`` and name this instead."""

Messages = Sequence[Mapping[str, Any]]


def cost(judge: JudgeOptions, sent: int, answered: int) -> float | None:
    """Return what so many tokens cost; None without prices."""
    if judge.price_in is None and judge.price_out is None:
        return None
    return (sent * (judge.price_in or 0) + answered * (judge.price_out or 0)) / 1e6


def require_within(judge: JudgeOptions, sent: int, answered: int) -> None:
    """Make sure that so many expected tokens are allowed.

    Raises:
        RecipeError: they, or what they cost, are more.
    """
    tokens, price = sent + answered, cost(judge, sent, answered)
    if judge.max_tokens_total is not None and tokens > judge.max_tokens_total:
        limit = f"{judge.max_tokens_total:,}"
        raise RecipeError("error.judge_tokens", needed=f"{tokens:,}", limit=limit)
    if judge.max_cost is not None and price is not None and price > judge.max_cost:
        limit = f"{judge.max_cost:g}"
        raise RecipeError("error.judge_cost", needed=f"{price:.4g}", limit=limit)


class Budget:
    """Asks within the caps of ``judge``; several threads may share it.

    A request's worst case is set aside while it is under way: a token for each byte sent, which
    no tokenizer passes, and the longest reply, which the service is told (``max_tokens``). Where
    that is more than is left, a request waits for those under way, and alone makes do with a
    shorter reply. The first goes alone: it shows what the service counts, and how it wants the
    limit called.
    """

    def __init__(self, judge: JudgeOptions, endpoint: Endpoint) -> None:
        self._judge, self._endpoint = judge, endpoint
        self._capped = judge.max_tokens_total is not None or judge.max_cost is not None
        self._changed = threading.Condition()
        self._sent = self._answered = self._under_way = 0
        self._known, self._dearer, self._limit = False, 1.0, "max_tokens"

    def ask(self, messages: Messages, **sampling: Any) -> Answer:
        """Return the endpoint's answer.

        Raises:
            RecipeError: the next request could take more than is left.
            EndpointError: the endpoint cannot be asked.
        """
        if not self._capped:
            return self._endpoint.answer(messages, **sampling)
        answer = self._ask_within(messages, sampling)
        if answer.error is not None and _OTHER_LIMIT in str(answer.error):
            self._limit = _OTHER_LIMIT
            answer = self._ask_within(messages, sampling)
        return answer

    def _ask_within(self, messages: Messages, sampling: Mapping[str, Any]) -> Answer:
        size = sum(len(str(m["content"]).encode()) + _MESSAGE_TOKENS for m in messages)
        sent, room = self._set_aside(size)
        used = 0, 0
        try:
            answer = self._endpoint.answer(messages, **sampling, **{self._limit: room})
            if answer.error is None and not answer.cached:
                # A service that counts nothing is counted by the bytes.
                said = len(answer.text.encode())
                used = answer.prompt_tokens or size, answer.completion_tokens or said
            return answer
        finally:
            with self._changed:
                self._known |= used[0] > 0
                self._dearer = max(self._dearer, used[0] / size)
                self._count(used[0] - sent, used[1] - room, -1)
                self._changed.notify_all()

    def _set_aside(self, size: int) -> tuple[int, int]:
        """Wait until a request of ``size`` bytes may go; return the tokens kept for both ways."""
        with self._changed:
            while True:
                alone, sent = not self._under_way, ceil(size * self._dearer)
                left = self._left(sent)
                room = min(_LONGEST, *left.values())
                if room >= _SHORTEST if alone else self._known and room >= _LONGEST:
                    self._count(sent, int(room), 1)
                    return sent, int(room)
                if alone:
                    raise self._spent(min(left, key=left.__getitem__))
                self._changed.wait()

    def _count(self, sent: int, answered: int, under_way: int) -> None:
        self._sent += sent
        self._answered += answered
        self._under_way += under_way

    def _left(self, sent: int) -> dict[str, float]:
        """Return how many tokens each cap leaves for the reply to ``sent`` more."""
        judge, sent, left = self._judge, self._sent + sent, {}
        if judge.max_tokens_total is not None:
            left["tokens"] = float(judge.max_tokens_total - sent - self._answered)
        if judge.max_cost is not None:
            rest = judge.max_cost - (cost(judge, sent, self._answered) or 0)
            left["cost"] = rest * 1e6 / judge.price_out if judge.price_out else copysign(inf, rest)
        return left

    def _spent(self, cap: str) -> RecipeError:
        judge, tokens = self._judge, self._sent + self._answered
        if cap == "tokens":
            limit = f"{judge.max_tokens_total:,}"
            return RecipeError("error.judge_tokens_spent", spent=f"{tokens:,}", limit=limit)
        spent = f"{cost(judge, self._sent, self._answered) or 0:.4g}"
        return RecipeError("error.judge_cost_spent", spent=spent, limit=f"{judge.max_cost:g}")
