"""A poem in words: its marks line by line, and under each line what is to be said of it."""

from weitiao.evaluation.poems.poem import Poem
from weitiao.words import Language, say


def form_name(poem: Poem, language: Language | None = None) -> str:
    """Return what the poem's form is called: ``五言绝句``."""
    if poem.form is None:
        return say("poem.form.none", language)
    if poem.length == 5:
        return say(f"poem.form.five_{poem.form}", language)
    return say(f"poem.form.seven_{poem.form}", language)


def as_text(poem: Poem, language: Language | None = None) -> str:
    """Return the poem with its marks, the findings under their lines, and what marks mean."""
    rhyme = "、".join(poem.groups) or say("poem.no_rhyme", language)
    rows = [
        say(
            "poem.head",
            language,
            form=form_name(poem, language),
            book=say(f"poem.book.{poem.rhymes}", language),
            rhyme=rhyme,
        )
    ]
    for number, line in enumerate(poem.lines, 1):
        rows.append(f"{line.text}  {line.marks}{say('poem.rhymes', language) * line.rhymes}")
        rows += _sentences(poem, number, language)
    rows += _sentences(poem, 0, language)
    rows.append(say("poem.legend", language))
    return "\n".join(rows)


def _sentences(poem: Poem, line: int, language: Language | None) -> list[str]:
    indent = "    " if line else ""
    return [
        indent + say(finding.key, language, **finding.values)
        for finding in poem.findings
        if finding.line == line
    ]
