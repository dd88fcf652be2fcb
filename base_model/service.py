"""Synthetic text about everyday services: extraction, intents, replies, labels.

The schema asked for is always in the prompt and differs from row to row, so what can be
learned is to read the request, to copy spans and to write JSON, not any one task's answer.
"""

import json
import tomllib
from dataclasses import dataclass, field

from lexicon import HERE, SLOT, Draw
from sources import Dialogue, ask

Document = Dialogue | str


@dataclass(frozen=True)
class Intent:
    """Something a customer wants: names for it, ways to say it, ways to answer."""

    labels: list[str]
    say: list[str]
    reply: list[str]


@dataclass(frozen=True)
class Domain:
    """A service: its slots as ``name -> (kind of word, names of the field)``."""

    name: str
    slots: dict[str, tuple[str, list[str]]]
    intents: list[Intent] = field(default_factory=list)


@dataclass(frozen=True)
class Utterance:
    """What a customer said, and everything that is true of it."""

    domain: Domain
    intent: Intent
    text: str
    values: dict[str, str]
    reply: str


def read_domains(lang: str) -> list[Domain]:
    """Return the service domains of one language."""
    text = (HERE / f"domains_{lang}.toml").read_text(encoding="utf-8")
    domains = []
    for row in tomllib.loads(text)["domain"]:
        slots = {}
        for name, declared in row["slots"].items():
            kind, names = declared.split("|")
            slots[name] = (kind.strip(), names.split())
        intents = [
            Intent(intent["labels"].split(), intent["say"], intent["reply"])
            for intent in row["intent"]
        ]
        domains.append(Domain(row["name"], slots, intents))
    return domains


DOMAINS = {lang: read_domains(lang) for lang in ("zh", "en")}
OPENERS = {
    "zh": ["你好，", "您好，", "请问", "麻烦了，", "那个，", "嗨，", "打扰一下，", "客服你好，"],
    "en": ["Hello, ", "Hi, ", "Excuse me, ", "Good day, ", "Sorry, "],
}
CLOSERS = {
    "zh": ["，谢谢", "，麻烦了", "，急", "，尽快", "。", "吧", "，谢谢啦", "！", "，多谢"],
    "en": [", thanks", " please", ".", ", thank you", ", it is urgent"],
}
SPEAKERS = {
    "zh": [("顾客", "客服"), ("甲", "乙"), ("问", "答"), ("用户", "助手"), ("客人", "店员")],
    "en": [("Customer", "Agent"), ("A", "B"), ("Question", "Answer"), ("Guest", "Staff")],
}
ACTION_KEYS = [
    ("intent", "slots", "reply"),
    ("intent", "slots", "reply"),
    ("action", "params", "message"),
    ("type", "fields", "answer"),
    ("意图", "参数", "回复"),
    ("label", "entities", "response"),
    ("name", "arguments", "text"),
]
CUT_MARKS = {"zh": "？?。！，", "en": "?.! "}


def dumps(value: object) -> str:
    """Return JSON in the style that the embedded model is taught."""
    return json.dumps(value, ensure_ascii=False)


def listed(draw: Draw, items: list[str]) -> str:
    """Return ``items`` as an enumeration."""
    marks = ["、", "，", "/", ", ", " "] if draw.zh else [", ", " / ", ", "]
    return draw.one(marks).join(items)


def utter(draw: Draw, domain: Domain | None = None) -> Utterance:
    """Return something a customer of a random service says."""
    domain = domain or draw.one(DOMAINS[draw.lang])
    intent = draw.one(domain.intents)
    values = {name: draw.word(kind) for name, (kind, _) in domain.slots.items()}
    if values.get("to") and values["to"] == values.get("from"):
        return utter(draw, domain)
    template = draw.choose(draw.one(intent.say))
    text = draw.fill(template, **values)
    said = {name: values[name] for name in values if name in mentioned(template)}
    if draw.chance(0.3):
        text = draw.one(OPENERS[draw.lang]) + text
    if draw.chance(0.3):
        text = text.rstrip(CUT_MARKS[draw.lang]) + draw.one(CLOSERS[draw.lang])
    # A reply may only repeat what was said.
    replies = [reply for reply in intent.reply if mentioned(reply) <= said.keys()]
    reply = draw.text(draw.one(replies), **said) if replies else draw.phrase("greeting_reply")
    return Utterance(domain, intent, text, said, reply)


def mentioned(template: str) -> set[str]:
    """Return the slots of a template."""
    return {slot[1] + slot[2] for slot in SLOT.finditer(template)}


def asked_fields(draw: Draw, said: Utterance) -> dict[str, str]:
    """Return an order to extract: field names with their values, sometimes a missing one."""
    slots = list(said.values)
    missing = [name for name in said.domain.slots if name not in said.values]
    if missing and draw.chance(0.3):
        slots.append(draw.one(missing))
    draw.rng.shuffle(slots)
    return {draw.one(said.domain.slots[name][1]): said.values.get(name, "") for name in slots}


def extraction(draw: Draw) -> Document:
    """Extract named fields into a flat JSON object."""
    said = utter(draw)
    fields = asked_fields(draw, said)
    if not fields:
        return service_reply(draw)
    keys = listed(draw, list(fields))
    answer = dumps(fields)
    if draw.chance(0.15):
        answer = dumps({draw.one(["result", "data", "结果", said.domain.name]): fields})
        keys += f" ({answer[2 : answer.index(':') - 1]})"
    if draw.chance(0.6):
        return ask(said.text, answer, draw.phrase("extract_system", keys=keys))
    return ask(draw.phrase("extract_user", keys=keys, x=said.text), answer)


def action(draw: Draw) -> Document:
    """Turn an utterance into intent, slots and a reply."""
    said = utter(draw)
    intent_key, slots_key, reply_key = draw.one(ACTION_KEYS)
    style = draw.number(0, 2)
    label = said.intent.labels[style % len(said.intent.labels)]
    slots = {
        names[min(style, len(names) - 1)]: said.values[name]
        for name, (_, names) in said.domain.slots.items()
        if name in said.values
    }
    answer: dict[str, object] = {intent_key: label, slots_key: slots}
    if draw.chance(0.8):
        answer[reply_key] = said.reply
    prompt = draw.phrase("action_system", domain=said.domain.name, keys=listed(draw, list(answer)))
    if draw.chance(0.4):
        labels = [intent.labels[style % len(intent.labels)] for intent in said.domain.intents]
        prompt += listed(draw, labels)
    return ask(said.text, dumps(answer), prompt)


def service_reply(draw: Draw) -> Document:
    """Answer a customer in one sentence, sometimes through to the thanks."""
    said = utter(draw)
    prompt = draw.phrase("reply_system", domain=said.domain.name) if draw.chance(0.5) else None
    dialogue = ask(said.text, said.reply, prompt)
    if draw.chance(0.15):
        dialogue += ask(draw.phrase("thanks"), draw.phrase("welcome"))
    return dialogue


def intent_label(draw: Draw) -> Document:
    """Choose an utterance's label among labels named in the prompt."""
    domain = draw.one(DOMAINS[draw.lang])
    said = utter(draw, domain)
    style = draw.number(0, 2)
    others = [intent for each in DOMAINS[draw.lang] for intent in each.intents]
    near = [*domain.intents, *draw.some(others, draw.number(0, 3))]
    labels = list({intent.labels[style % len(intent.labels)]: None for intent in near})
    draw.rng.shuffle(labels)
    answer = said.intent.labels[style % len(said.intent.labels)]
    if draw.chance(0.5):
        return ask(said.text, answer, draw.phrase("label_system", labels=listed(draw, labels)))
    return ask(draw.phrase("label_user", x=said.text, labels=listed(draw, labels)), answer)


def domain_label(draw: Draw) -> Document:
    """Choose the domain that an utterance belongs to."""
    domains = draw.some(DOMAINS[draw.lang], draw.number(2, 5))
    said = utter(draw, domains[0])
    labels = [domain.name for domain in domains]
    draw.rng.shuffle(labels)
    text = draw.phrase("topic_question", x=said.text, labels=listed(draw, labels))
    return ask(text, said.domain.name)


def field_question(draw: Draw) -> Document:
    """Answer which value an utterance gives for one field."""
    said = utter(draw)
    if not said.values:
        return service_reply(draw)
    name = draw.one(list(said.values))
    key = said.domain.slots[name][1][-1 if draw.zh else 0]
    return ask(draw.phrase("field_question", x=said.text, key=key), said.values[name])


def transcript(draw: Draw) -> Document:
    """Return a plain passage: a conversation at a counter."""
    domain = draw.one(DOMAINS[draw.lang])
    customer, staff = draw.one(SPEAKERS[draw.lang])
    colon = "：" if draw.zh else ": "
    turns = []
    for _ in range(draw.number(2, 4)):
        said = utter(draw, domain)
        turns += [f"{customer}{colon}{said.text}", f"{staff}{colon}{said.reply}"]
    if draw.chance(0.5):
        turns += [
            f"{customer}{colon}{draw.phrase('thanks')}",
            f"{staff}{colon}{draw.phrase('welcome')}",
        ]
    return "\n".join(turns)


def greeting(draw: Draw) -> Document:
    """Greet, then serve."""
    said = utter(draw)
    opening = ask(draw.phrase("greeting"), draw.phrase("greeting_reply"))
    return opening + ask(said.text, said.reply) if draw.chance(0.6) else opening


FAMILIES = [
    (extraction, 22),
    (action, 16),
    (service_reply, 9),
    (intent_label, 6),
    (domain_label, 3),
    (field_question, 5),
    (transcript, 3),
    (greeting, 1),
]
