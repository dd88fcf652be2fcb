"""How the next token of each row is chosen, by settings of its own.

The order is that of transformers' processors: repetition penalty, temperature, top_p. Chance is
a function of a row's seed and its number of new tokens, so that an answer does not depend on
who is answered beside it. Shapes: M rows, V vocabulary.
"""

import random
import secrets
from collections.abc import Sequence

import torch

LIKELIEST = 1024
"""Tokens among which top_p's are looked for first: sorting a large vocabulary takes long."""


class Chooser:
    """Chooses the tokens of one row, whose tokens so far are ``said``, its prompt's first.

    ``temperature`` 0 takes the likeliest; without a ``seed`` another is drawn.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        temperature: float = 0.0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
    ) -> None:
        self.said = list(prompt)
        self._prompt = len(prompt)
        self._temperature, self._top_p = temperature, top_p
        self._penalty = repetition_penalty
        self._seed = secrets.randbits(64) if seed is None else seed

    @property
    def new(self) -> int:
        """How many tokens were said after the prompt."""
        return len(self.said) - self._prompt

    @property
    def takes_likeliest(self) -> bool:
        """Whether the model's likeliest token is always the next."""
        return self._temperature == 0 and self._penalty == 1.0

    def choose(self, logits_V: torch.Tensor) -> torch.Tensor:
        """Return the next token, a tensor of no dimensions; the same one if asked again."""
        scores_V = logits_V.float()
        if self._penalty != 1.0:
            said = torch.tensor(self.said, device=scores_V.device)
            of_said = scores_V[said]
            punished = torch.where(of_said < 0, of_said * self._penalty, of_said / self._penalty)
            scores_V = scores_V.index_put((said,), punished)
        if self._temperature == 0:
            return scores_V.argmax()
        # A tiny temperature must not make an infinity of the best.
        probabilities_V = ((scores_V - scores_V.max()) / self._temperature).softmax(-1)
        chance = random.Random(f"{self._seed}:{self.new}").random()
        if self._top_p >= 1.0:
            return _drawn(probabilities_V.double().cumsum(-1), chance)
        values, tokens = probabilities_V.topk(min(LIKELIEST, len(probabilities_V)))
        sums = values.double().cumsum(-1)
        if sums[-1] < self._top_p:
            values, tokens = probabilities_V.sort(descending=True)
            sums = values.double().cumsum(-1)
        # The fewest tokens that have top_p together.
        count = int(torch.searchsorted(sums, self._top_p)) + 1
        return tokens[_drawn(sums[:count], chance)]


def _drawn(sums: torch.Tensor, chance: float) -> torch.Tensor:
    """Return which of the parts that ``sums`` adds up ``chance`` (0 to 1) falls into."""
    place = torch.searchsorted(sums, sums[-1] * chance, right=True)
    return place.clamp(max=len(sums) - 1)


def choose(logits_MV: torch.Tensor, choosers: Sequence[Chooser]) -> list[int | None]:
    """Return the next token of each row; None where the model's logits are no numbers."""
    best = logits_MV.max(-1)
    found_M, sound = best.indices, best.values.isfinite().tolist()
    for row, chooser in enumerate(choosers):
        if sound[row] and not chooser.takes_likeliest:
            found_M[row] = chooser.choose(logits_MV[row])
    tokens: list[int] = found_M.tolist()
    return [token if good else None for token, good in zip(tokens, sound, strict=True)]


def log_probabilities(
    logits_V: torch.Tensor, token: int, top: int
) -> tuple[float, tuple[tuple[int, float], ...]]:
    """Return the natural log of the token's probability, and the ``top`` likeliest with theirs."""
    logs_V = logits_V.float().log_softmax(-1)
    likeliest = logs_V.topk(min(top, len(logs_V)))
    pairs = zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
    return float(logs_V[token]), tuple(pairs)
