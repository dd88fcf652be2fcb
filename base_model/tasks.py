"""Synthetic text of small exact tasks: copying, lists, JSON, sums, kinds of things."""

from lexicon import WEEKDAYS, WORDS, ZH_DIGITS, Draw
from service import Document, dumps, listed, utter
from sources import ask

KIND_NAMES = {
    "zh": {
        "city": "城市", "dish": "菜", "food": "食材", "animal": "动物", "plant": "植物",
        "color": "颜色", "job": "职业", "subject": "科目", "book": "书", "appliance": "电器",
        "weather": "天气", "drink": "饮料", "hobby": "爱好", "symptom": "症状",
        "surname": "姓", "feeling": "心情", "scenic": "景点", "material": "材料",
    },
    "en": {
        "city": "city", "dish": "dish", "food": "food", "animal": "animal", "plant": "plant",
        "color": "color", "job": "job", "subject": "subject", "book": "book",
        "drink": "drink", "hobby": "hobby", "feeling": "feeling", "appliance": "machine",
    },
}  # fmt: skip
FIELD_NAMES = {
    "zh": {
        "姓名": "person", "城市": "city", "电话": "phone", "日期": "day", "时间": "clock",
        "年龄": "age", "职业": "job", "爱好": "hobby", "地址": "address", "价格": "price",
        "物品": "object", "颜色": "color", "数量": "few", "编号": "order", "科目": "subject",
        "分数": "score", "车次": "train", "天气": "weather", "书名": "book", "公司": "company",
        "菜名": "dish", "材料": "material", "景点": "scenic", "酒店": "hotel", "学校": "school",
    },
    "en": {
        "name": "person", "city": "city", "phone": "phone", "date": "day", "time": "clock",
        "age": "age", "job": "job", "hobby": "hobby", "address": "address", "price": "price",
        "item": "object", "color": "color", "count": "few", "code": "order", "book": "book",
        "subject": "subject", "score": "score", "weather": "weather", "company": "company",
    },
}  # fmt: skip
SHARED_FIELDS = {
    "name": "person", "city": "city", "phone": "phone", "date": "day", "time": "clock",
    "age": "age", "job": "job", "address": "address", "price": "price", "item": "object",
    "color": "color", "count": "few", "id": "order", "title": "book", "score": "score",
}  # fmt: skip


def nouns(draw: Draw, low: int = 3, high: int = 7) -> list[str]:
    """Return different words of one kind, or of mixed kinds."""
    count = draw.number(low, high)
    if draw.chance(0.6):
        return draw.words(draw.one(list(KIND_NAMES[draw.lang])), count)
    return list(dict.fromkeys(draw.noun() for _ in range(count)))


def fields(draw: Draw) -> dict[str, str]:
    """Return a few named values."""
    known = FIELD_NAMES[draw.lang] if draw.chance(0.6) else SHARED_FIELDS
    return {name: draw.word(known[name]) for name in draw.some(list(known), draw.number(2, 6))}


def enumeration(draw: Draw, items: list[str]) -> str:
    """Return ``items`` as an answer lists them: always with the same mark."""
    return ("、" if draw.zh else ", ").join(items)


def scramble(draw: Draw) -> str:
    """Return a string without sense, so that copying it cannot lean on language."""
    if draw.zh and draw.chance(0.7):
        kinds = ("given", "surname")
        return "".join(draw.word(draw.one(kinds)) for _ in range(draw.number(3, 12)))
    if draw.chance(0.5):
        return " ".join(draw.word("order") for _ in range(draw.number(1, 3)))
    return " ".join(draw.noun() for _ in range(draw.number(2, 6)))


def repeat(draw: Draw) -> Document:
    """Copy a text."""
    kind = draw.one(["scramble", "sentence", "list"])
    if kind == "scramble":
        text = scramble(draw)
    else:
        text = utter(draw).text if kind == "sentence" else listed(draw, nouns(draw))
    return ask(draw.phrase("repeat", x=text), text)


def pick(draw: Draw) -> Document:
    """Answer a question about the order of a list."""
    items = nouns(draw)
    line = listed(draw, items)
    place = draw.number(0, len(items) - 1)
    number = ZH_DIGITS[place + 1] if draw.zh and draw.chance(0.5) else str(place + 1)
    if draw.chance(0.4):
        return ask(draw.phrase("nth", list=line, n=number), items[place])
    if draw.chance(0.3):
        return ask(draw.phrase("last", list=line), items[-1])
    if place + 1 < len(items) and draw.chance(0.6):
        return ask(draw.phrase("after", list=line, x=items[place]), items[place + 1])
    return ask(draw.phrase("reverse", list=line), enumeration(draw, items[::-1]))


def count(draw: Draw) -> Document:
    """Count the items of a list, or say whether it holds one."""
    items = nouns(draw, 2, 9)
    line = listed(draw, items)
    if draw.chance(0.5):
        answer = f"{len(items)}个" if draw.zh else str(len(items))
        return ask(draw.phrase("count", list=line), answer)
    wanted = draw.one(items) if draw.chance(0.5) else draw.noun()
    yes, no = ("有。", "没有。") if draw.zh else ("Yes.", "No.")
    return ask(draw.phrase("contains", list=line, x=wanted), yes if wanted in items else no)


def json_writing(draw: Draw) -> Document:
    """Write a list, or lines of ``name: value``, as JSON."""
    if draw.chance(0.3):
        items = nouns(draw)
        return ask(draw.phrase("list_json", list=listed(draw, items)), dumps(items))
    named = fields(draw)
    colon, comma = draw.one([("：", "\n"), (": ", "\n"), ("是", "，"), ("=", "; ")])
    if not draw.zh:
        colon, comma = draw.one([(": ", "\n"), ("=", ", "), (" is ", ", ")])
    text = comma.join(f"{name}{colon}{value}" for name, value in named.items())
    if draw.chance(0.2):
        outer = draw.one(["info", "data", "detail", "record", "user", "item"])
        request = draw.phrase("pairs_json", x=text) + f' ({{"{outer}": ...}})'
        return ask(request, dumps({outer: named}))
    return ask(draw.phrase("pairs_json", x=text), dumps(named))


def json_reading(draw: Draw) -> Document:
    """Look up or change one value of a JSON object."""
    named = fields(draw)
    key = draw.one(list(named))
    if draw.chance(0.6):
        return ask(draw.phrase("json_lookup", x=dumps(named), key=key), named[key])
    known = FIELD_NAMES[draw.lang] | SHARED_FIELDS
    value = draw.word(known[key])
    request = draw.phrase("json_edit", x=dumps(named), key=key, y=value)
    return ask(request, dumps(named | {key: value}))


def replace(draw: Draw) -> Document:
    """Replace a word of a sentence."""
    said = utter(draw)
    if not said.values:
        return repeat(draw)
    name = draw.one(list(said.values))
    old, new = said.values[name], draw.word(said.domain.slots[name][0])
    return ask(draw.phrase("replace", x=said.text, a=old, b=new), said.text.replace(old, new))


def arithmetic(draw: Draw) -> Document:
    """Work out a bare sum."""
    kind = draw.one(["add", "add", "subtract", "subtract", "multiply", "compare"])
    high = draw.one([10, 20, 100]) if kind != "multiply" else 9
    a, b = sorted((draw.number(1, high), draw.number(1, high)), reverse=True)
    answers = {"add": a + b, "subtract": a - b, "multiply": a * b, "compare": max(a, b)}
    if kind in ("add", "compare") and draw.chance(0.5):
        a, b = b, a
    return ask(draw.phrase(kind, a=str(a), b=str(b)), str(answers[kind]))


def word_problem(draw: Draw) -> Document:
    """Work out a sum told as a story, with the working shown."""
    kind = draw.one(["buy_sum", "more_sum", "less_sum"])
    a, b = draw.number(3, 30), draw.number(2, 9)
    if kind == "less_sum" and a < b:
        a, b = b, a
    sign, result = {"buy_sum": ("×", a * b), "more_sum": ("+", a + b), "less_sum": ("-", a - b)}[
        kind
    ]
    question = draw.phrase(kind, a=str(a), b=str(b))
    ending = "。" if draw.zh else "."
    return ask(question, f"{a}{sign}{b}={result}{ending}")


def ordering(draw: Draw) -> Document:
    """Sort numbers, or find the largest or smallest."""
    numbers = draw.rng.sample(range(1, draw.one([10, 30, 100])), draw.number(3, 5))
    line = listed(draw, [str(number) for number in numbers])
    kind = draw.one(["sort", "biggest", "smallest"])
    answers = {
        "sort": enumeration(draw, [str(number) for number in sorted(numbers)]),
        "biggest": str(max(numbers)),
        "smallest": str(min(numbers)),
    }
    return ask(draw.phrase(kind, list=line), answers[kind])


def letters(draw: Draw) -> Document:
    """Count a word's characters, or give its first or last one; in English, find a number."""
    if not draw.zh or draw.chance(0.3):
        said = utter(draw)
        digits = [value for value in said.values.values() if value.isdigit()]
        if len(digits) != 1 or sum(part.isdigit() for part in said.text) != len(digits[0]):
            return repeat(draw)
        return ask(draw.phrase("find_number", x=said.text), digits[0])
    word = draw.noun()
    kind = draw.one(["spell", "first_char", "last_char"])
    answers = {"spell": f"{len(word)}个字", "first_char": word[0], "last_char": word[-1]}
    return ask(draw.phrase(kind, x=word), answers[kind])


def kinds(draw: Draw) -> Document:
    """Name the kind of a thing, or find the thing of another kind."""
    names = KIND_NAMES[draw.lang]
    kind, other, *more = draw.some(list(names), draw.number(3, 5))
    if draw.chance(0.6):
        labels = [names[each] for each in (kind, other, *more)]
        draw.rng.shuffle(labels)
        question = draw.phrase("kind_of", x=draw.word(kind), labels=listed(draw, labels))
        return ask(question, names[kind])
    stranger = draw.word(other)
    items = [*draw.words(kind, draw.number(3, 4)), stranger]
    draw.rng.shuffle(items)
    return ask(draw.phrase("odd_one", list=listed(draw, items)), stranger)


def calendar(draw: Draw) -> Document:
    """Say which day follows."""
    if draw.chance(0.5) or not draw.zh:
        today = draw.number(0, 6)
        if draw.zh:
            days = "一二三四五六日"
            following = f"星期{days[(today + 1) % 7]}"
            return ask(draw.phrase("weekday_question", a=days[today]), following)
        return ask(f"What day comes after {WEEKDAYS[today]}?", WEEKDAYS[(today + 1) % 7])
    date, later = draw.number(1, 18), draw.number(1, 9)
    return ask(draw.phrase("date_question", a=str(date), b=str(later)), f"{date + later}号")


def word_list(draw: Draw) -> Document:
    """Return a plain passage: words of some kinds, as in a primer."""
    names = KIND_NAMES[draw.lang]
    lines = []
    for kind in draw.some([kind for kind in names if kind in WORDS[draw.lang]], 3):
        words = draw.words(kind, draw.number(4, 8))
        lines.append(
            f"{names[kind]}：{'、'.join(words)}。"
            if draw.zh
            else f"{names[kind]}: {', '.join(words)}."
        )
    return "\n".join(lines)


FAMILIES = [
    (repeat, 6), (pick, 5), (count, 3), (json_writing, 6), (json_reading, 4), (replace, 3),
    (arithmetic, 3), (word_problem, 3), (ordering, 2), (letters, 2), (kinds, 3), (calendar, 1),
    (word_list, 1),
]  # fmt: skip
