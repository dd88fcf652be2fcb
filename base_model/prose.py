"""Synthetic prose: invented people and questions on them, stories, descriptions, reviews."""

import tomllib

from lexicon import HERE, Draw
from service import Document, listed, utter
from sources import ask

TEMPLATES = tomllib.loads((HERE / "prose.toml").read_text(encoding="utf-8"))
SENTIMENTS = {
    "zh": {"good": ["好评", "正面"], "bad": ["差评", "负面"], "neutral": ["中评", "中性"]},
    "en": {"good": ["positive"], "bad": ["negative"], "neutral": ["neutral"]},
}


def articled(draw: Draw, kind: str) -> str:
    """Return an English word with its article."""
    word = draw.word(kind)
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def joined(draw: Draw, sentences: list[str]) -> str:
    """Return sentences as running text."""
    if draw.zh:
        stripped = [sentence.rstrip("。") for sentence in sentences]
        marks = [draw.one("，。。") for _ in sentences[1:]] + ["。"]
        return "".join(
            sentence if sentence.endswith(("”", "？", "！")) else sentence + mark
            for sentence, mark in zip(stripped, marks, strict=True)
        )
    return " ".join(s[0].upper() + s[1:].rstrip(".") + "." for s in sentences)


def facts(draw: Draw, name: str, count: int) -> list[tuple[str, str, str]]:
    """Return ``count`` (sentence, question, answer) about the person ``name``."""
    found = []
    for sentence, question, slot in draw.some(TEMPLATES[draw.lang]["about_person"], count):
        values = {"name": name, slot: draw.word(slot), "relation": draw.word("relation")}
        found.append((draw.text(sentence, **values), draw.text(question, **values), values[slot]))
    return found


def people(draw: Draw) -> Document:
    """Tell about one or two people; answer a question about one, or leave it as a passage."""
    names = draw.words("person", draw.number(1, 2))
    known = [fact for name in names for fact in facts(draw, name, draw.number(2, 4))]
    text = joined(draw, [sentence for sentence, _, _ in known])
    if draw.chance(0.1):
        return text
    _, question, answer = draw.one(known)
    return ask(draw.phrase("about_question", x=text, question=question), answer)


def summary(draw: Draw) -> Document:
    """Summarize a short text by its first sentence."""
    known = facts(draw, draw.word("person"), 3)
    ending = "。" if draw.zh else "."
    text = joined(draw, [sentence for sentence, _, _ in known])
    return ask(draw.phrase("summarize", x=text), known[0][0] + ending)


def told(draw: Draw, hero: str) -> str:
    """Return a story of five to eight sentences about ``hero``."""
    values = {"hero": hero, "the_hero": hero if hero[0].isupper() else f"the {hero}"}
    for kind in ("animal", "object", "plant", "material", "place", "relation2"):
        values[kind] = draw.word(kind.rstrip("2"))
    if not draw.zh:
        values["a_hero"] = hero if hero[0].isupper() else articled_word(hero)
    sentences = []
    for part in TEMPLATES[draw.lang]["story"]:
        for template in draw.some(part, 2 if draw.chance(0.3) else 1):
            local = {} if draw.zh else article_values(draw)
            sentences.append(draw.text(template, **values, **local))
    return joined(draw, sentences)


def articled_word(word: str) -> str:
    """Return ``word`` with its article."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def article_values(draw: Draw) -> dict[str, str]:
    """Return the slots of English templates that carry an article."""
    return {f"a_{kind}": articled(draw, kind) for kind in ("adjective", "color")}


def story(draw: Draw) -> Document:
    """Tell a story: alone, on request, or continued."""
    hero = draw.word("person") if draw.chance(0.5) else draw.word("animal")
    text = told(draw, hero)
    if draw.chance(0.4):
        return text
    if draw.chance(0.3):
        cut = text.index("。" if draw.zh else ". ") + 1
        if cut < len(text):
            return ask(draw.phrase("continue_request", x=text[:cut]), text[cut:].strip())
    return ask(draw.phrase("story_request", x=hero), text)


def description(draw: Draw) -> Document:
    """Describe a thing, a place, a trade or a season."""
    kind = draw.one(list(TEMPLATES[draw.lang]["description"]))
    thing = draw.word(kind)
    templates = TEMPLATES[draw.lang]["description"][kind]
    values = {} if draw.zh else article_values(draw)
    chosen = [templates[0], *draw.some(templates[1:], draw.number(2, len(templates) - 1))]
    text = joined(draw, [draw.text(template, x=thing, **values) for template in chosen])
    return text if draw.chance(0.4) else ask(draw.phrase("describe_request", x=thing), text)


def review(draw: Draw) -> Document:
    """Say whether a review praises or blames."""
    kind = draw.one(["good", "good", "bad", "bad", "neutral"])
    text = draw.phrase("review", opinion=draw.word(kind))
    if draw.zh:
        text += draw.one(
            [
                "。",
                "！",
                "",
                "，" + draw.one(["下次还来。", "就这样。"]) if kind == "good" else "。",
            ]
        )
    question = draw.phrase("review_question", x=text)
    style = 0 if "好评" in question else -1
    return ask(question, SENTIMENTS[draw.lang][kind][style])


def polite(draw: Draw) -> Document:
    """Put an order politely."""
    bare = draw.text(draw.one(TEMPLATES[draw.lang]["bare"]))
    return ask(
        draw.phrase("polite", x=bare), draw.text(draw.one(TEMPLATES[draw.lang]["polite"]), x=bare)
    )


def diary(draw: Draw) -> Document:
    """Return a plain passage: notes of several people's days and requests."""
    lines = []
    for _ in range(draw.number(2, 4)):
        name = draw.word("person")
        if draw.chance(0.5):
            lines.append(joined(draw, [sentence for sentence, _, _ in facts(draw, name, 2)]))
        else:
            said = utter(draw)
            lines.append(f"{name}说：“{said.text}”" if draw.zh else f'{name} said: "{said.text}"')
    return "\n".join(lines)


def shopping(draw: Draw) -> Document:
    """Write or read a shopping list."""
    things = draw.words("food", draw.number(3, 6))
    counts = [draw.word("few") for _ in things]
    if draw.zh:
        lines = [f"{thing}{n}{draw.word('unit')}" for thing, n in zip(things, counts, strict=True)]
        place = draw.number(0, len(things) - 1)
        question = f"购物清单：{listed(draw, lines)}\n{things[place]}要买多少？"
        return ask(question, lines[place].removeprefix(things[place]))
    lines = [f"{n} {draw.word('unit')} {thing}" for thing, n in zip(things, counts, strict=True)]
    place = draw.number(0, len(things) - 1)
    return ask(f"Shopping list: {', '.join(lines)}\nHow much of the {things[place]}?", lines[place])


FAMILIES = [
    (people, 9), (summary, 2), (story, 5), (description, 6), (review, 3), (polite, 2), (diary, 2),
    (shopping, 2),
]  # fmt: skip
