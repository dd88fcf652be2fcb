"""The model card: what an export is, where it comes from, how good it is and how to load it."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import ModelCard, ModelCardData
from transformers.utils import cached_file

from weitiao.models.load import EMBEDDED, ModelSource
from weitiao.words import LANGUAGES, Language, say

Form = Literal["adapter", "merged", "gguf", "compressed"]

_RELATION = {
    "adapter": "adapter", "merged": "finetune", "gguf": "quantized", "compressed": "quantized",
}  # fmt: skip
_LIBRARY = {
    "adapter": "peft", "merged": "transformers", "gguf": "gguf", "compressed": "transformers",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Score:
    """One measure of the base and of the tuned model on the same held-out rows.

    ``low`` and ``high`` bound the difference tuned - base (95%), in the measure's unit.
    """

    name: str
    base: float
    tuned: float
    low: float
    high: float
    rows: int


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card tells, as plain values; None where a run does not know it.

    ``base`` is a hub id, a folder or ``embedded``; ``license`` an SPDX id or the hub's name for
    one. ``quantization`` is what the base was held in while training (nf4, int8).
    """

    name: str
    base: str
    license: str | None
    languages: tuple[str, ...]
    rows_kept: int
    rows_rejected: int
    method: str
    learning_rate: float
    epochs: float
    steps: int
    seed: int
    rank: int | None = None
    alpha: int | None = None
    quantization: str | None = None
    scores: tuple[Score, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def base_on_hub(self) -> bool:
        """Whether ``base`` is a name that others find the base by."""
        is_id = re.fullmatch(r"[\w.-]+/[\w.-]+", self.base) is not None
        return is_id and not self.base.startswith(".") and not Path(self.base).exists()


def license_of(source: ModelSource) -> str | None:
    """Return the licence that the base's own model card names; None where it names none."""
    if source.name == EMBEDDED:
        return "apache-2.0"
    card = cached_file(
        source.location,
        "README.md",
        revision=source.revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if card is None:
        return None
    try:
        found = ModelCard.load(card, ignore_metadata_errors=True).data.license
    except ValueError:
        # A card with broken front matter tells nothing.
        return None
    return found if isinstance(found, str) else None


def model_card(
    facts: CardFacts, form: Form, files: Sequence[str], system: str | None = None
) -> str:
    """Return the README.md of an export in English and Chinese, with front matter for the hub.

    ``files`` are the names of the export's weights: the card shows how to load them. ``system``
    is the prompt that all training rows share.
    """
    data = ModelCardData(
        base_model=facts.base if facts.base_on_hub else None,
        base_model_relation=_RELATION[form] if facts.base_on_hub else None,
        language=list(facts.languages) or None,
        library_name=_LIBRARY[form],
        license=facts.license or "unknown",
        pipeline_tag="text-generation",
        tags=["weitiao", facts.method, *(["gguf"] if form == "gguf" else [])],
    )
    bodies = "\n".join(_body(facts, form, files, system, language) for language in LANGUAGES)
    return f"---\n{data.to_yaml()}\n---\n\n# {facts.name}\n\n{bodies}"


def _body(
    facts: CardFacts, form: Form, files: Sequence[str], system: str | None, language: Language
) -> str:
    def part(name: str, *paragraphs: str) -> str:
        title = say(f"card.title.{name}", language)
        return f"## {title}\n\n" + "\n\n".join(paragraphs) + "\n"

    known = facts.license is not None
    licensed = say(
        "card.license" if known else "card.license_unknown", language, license=facts.license
    )
    return "\n".join(
        (
            part("model", say(f"card.form.{form}", language, base=facts.base), licensed),
            part(
                "data",
                say("card.data", language, kept=facts.rows_kept, rejected=facts.rows_rejected),
            ),
            part("recipe", _recipe(facts, language)),
            part("scores", _scores(facts, language)),
            part("load", _how_to_load(facts, form, files, language)),
            *([] if system is None else [part("system", *_system(system, language))]),
            part("limits", say("card.limits", language), *facts.notes),
        )
    )


def _system(system: str, language: Language) -> tuple[str, str]:
    """Return what is to be done with the system prompt, and the prompt word for word."""
    shown = textwrap.indent(system, "    ", lambda line: True)
    return say("card.system", language), shown


def _recipe(facts: CardFacts, language: Language) -> str:
    rows = {
        "method": facts.method,
        "quantization": facts.quantization,
        "rank": facts.rank,
        "alpha": facts.alpha,
        "learning_rate": f"{facts.learning_rate:g}",
        "epochs": f"{facts.epochs:g}",
        "steps": facts.steps,
        "seed": facts.seed,
    }
    told = [
        f"| {say(f'card.recipe.{name}', language)} | {value} |"
        for name, value in rows.items()
        if value is not None
    ]
    return "\n".join(("| | |", "|---|---|", *told))


def _scores(facts: CardFacts, language: Language) -> str:
    if not facts.scores:
        return say("card.no_scores", language)
    lines = [
        f"| {s.name} | {s.base:.4g} | {s.tuned:.4g} | "
        f"{s.tuned - s.base:+.4g} [{s.low:+.4g}, {s.high:+.4g}] | {s.rows} |"
        for s in facts.scores
    ]
    return "\n".join((say("card.scores_head", language), "|---|---:|---:|---:|---:|", *lines))


def _how_to_load(facts: CardFacts, form: Form, files: Sequence[str], language: Language) -> str:
    if form == "gguf":
        made = "\nollama create my-model -f Modelfile" if "Modelfile" in files else ""
        return f"```sh\nllama-cli -m {files[0]} --jinja{made}\n```"
    base = "base" if facts.base == EMBEDDED else facts.base
    first, adapted = (base, True) if form == "adapter" else (".", False)
    code = [
        "from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast",
        *(["from peft import PeftModel"] if adapted else []),
        "",
        'tokenizer = PreTrainedTokenizerFast.from_pretrained(".")',
        f'model = AutoModelForCausalLM.from_pretrained("{first}", dtype="auto")',
        *(['model = PeftModel.from_pretrained(model, ".")'] if adapted else []),
    ]
    if form == "compressed":
        code = ["# pip install vllm", "vllm serve ."]
    shown = f"```{'sh' if form == 'compressed' else 'python'}\n" + "\n".join(code) + "\n```"
    if not adapted or facts.base_on_hub:
        return shown
    beside = "card.base_beside" if facts.base == EMBEDDED else "card.base_local"
    return f"{say(beside, language)}\n\n{shown}"
