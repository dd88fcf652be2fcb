"""The measures beside the scores, each in a sentence for anybody."""

from collections.abc import Iterator
from pathlib import Path

from weitiao.evaluation.forgetting import Forgetting, load_forgetting
from weitiao.evaluation.memorising import Memorising, load_memorising
from weitiao.evaluation.speed import Speed, load_speed
from weitiao.words import Language, say


def notes(folder: Path, language: Language | None = None) -> Iterator[tuple[str, bool]]:
    """Yield a sentence for each measure that is in ``folder``, and whether it is a warning.

    Raises:
        RunError: a file is not of this version.
    """
    if (path := folder / "forgetting.json").exists():
        forgetting = load_forgetting(path)
        yield forgetting_sentence(forgetting, language), forgetting.level != "none"
    if (path := folder / "memorising.json").exists():
        yield memorising_sentence(load_memorising(path), language), False
    if (path := folder / "speed.json").exists():
        yield speed_sentence(load_speed(path), language), False


def forgetting_sentence(forgetting: Forgetting, language: Language | None = None) -> str:
    """Say how much was forgotten, and what would keep more."""
    whole = forgetting.whole
    return say(
        f"forgetting.{forgetting.level}",
        language,
        questions=whole.questions,
        agreement=f"{100 * whole.agreement.value:.0f}%",
        kl=f"{whole.kl.value:.2f}",
    )


def memorising_sentence(memorising: Memorising, language: Language | None = None) -> str:
    """Say how many training answers came word for word, and how many test answers are known."""
    if not memorising.asked:
        return say("memorising.short", language, units=memorising.units)
    said = say(
        "memorising.told",
        language,
        asked=memorising.asked,
        base=memorising.base.whole,
        tuned=memorising.tuned.whole,
    )
    if not memorising.test_rows:
        return said
    found, rows = memorising.test_found, memorising.test_rows
    return said + say("memorising.test", language, found=found, rows=rows)


def speed_sentence(speed: Speed, language: Language | None = None) -> str:
    """Say how fast the tuned model answers."""
    tuned = speed.tuned
    return say(
        "speed.extrapolated" if tuned.extrapolated else "speed.measured",
        language,
        first=f"{tuned.first_token_seconds:.2f}",
        rate=f"{tuned.tokens_per_second:,.0f}",
        long=f"{tuned.long_seconds:.1f}",
        tokens=speed.long_tokens,
        batch=f"{tuned.batch_tokens_per_second:,.0f}",
        size=speed.batch_size,
        memory=f"{tuned.memory_bytes / 2**30:.1f}",
    )
