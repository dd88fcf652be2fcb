"""The seeded generator of modern text: what a small base model needs in order to be tuned.

Documents are ChatML dialogues and plain passages, about three quarters Chinese. They teach
copying from the prompt, fields into JSON, choosing among labels in the prompt, short
replies, small sums and plain sentences. No bank, card, transfer or loan occurs in them: the
bundled example's task stays unknown to the base.
"""

import random
from collections.abc import Iterator

import prose
import service
import tasks
from lexicon import Draw
from sources import chatml

FAMILIES = [*service.FAMILIES, *tasks.FAMILIES, *prose.FAMILIES]
CHINESE_SHARE = 0.75


def documents(seed: int, characters: int) -> Iterator[str]:
    """Yield different documents until ``characters`` are reached; the same for the same seed."""
    rng = random.Random(seed)
    drawn = {"zh": Draw(rng, "zh"), "en": Draw(rng, "en")}
    written = {"zh": 0, "en": 0}
    seen: set[str] = set()
    makers = [maker for maker, _ in FAMILIES]
    weights = [weight for _, weight in FAMILIES]
    while sum(written.values()) < characters:
        # By characters, not by documents: English ones are longer.
        lang = "zh" if written["zh"] <= CHINESE_SHARE * sum(written.values()) else "en"
        made = rng.choices(makers, weights)[0](drawn[lang])
        text = made if isinstance(made, str) else chatml(made)
        if text not in seen:
            seen.add(text)
            written[lang] += len(text)
            yield text
