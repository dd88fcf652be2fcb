import docx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

from weitiao.errors import DataError
from weitiao.records.reading import read_file


def test_passages_are_the_text_and_begin_where_they_say(shared):
    path = shared / "data/wiki_demo.txt"
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    at = 0
    for number, row in enumerate(read_file(path, passage_chars=400).rows, start=1):
        passage = row.data["text"]
        assert row.data["passage"] == number
        assert len(passage) <= 400
        between, at = text[at : text.index(passage, at)], text.index(passage, at) + len(passage)
        assert not between.strip()
        assert passage.split("\n")[0] in lines[row.line - 1]
    assert not text[at:].strip()


@settings(max_examples=60, deadline=None)
@given(
    st.text(st.sampled_from("字a。 \n#>-`\t\u2028😀\r"), max_size=300),
    st.sampled_from(["md", "txt"]),
)
def test_any_text_comes_back(tmp_path_factory, text, kind):
    path = tmp_path_factory.getbasetemp() / f"a.{kind}"
    path.write_text(f"始{text}", encoding="utf-8", newline="")
    passages = [row.data["text"] for row in read_file(path, passage_chars=50).rows]
    assert "".join("".join(passages).split()) == "".join(f"始{text}".split())


def test_markdown_is_split_at_its_headings(tmp_path):
    path = tmp_path / "a.md"
    path.write_text("# 一\n\n" + "甲。" * 20 + "\n\n# 二\n\n" + "乙。" * 20, encoding="utf-8")
    found = [row.data["text"][:3] for row in read_file(path, passage_chars=60).rows]
    assert found == ["# 一", "# 二"]


def test_a_passage_begins_at_its_first_word(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\r\n\r\n \t\r\n  甲。\r\n\r\n", encoding="utf-8", newline="")
    assert [(row.line, row.data["text"]) for row in read_file(path).rows] == [(4, "甲。")]


def test_a_bad_byte_costs_its_passage(tmp_path):
    path = tmp_path / "a.txt"
    parts = [("甲。" * 20).encode(), b"\xff" + ("乙。" * 20).encode(), ("丙。" * 20).encode()]
    path.write_bytes(b"\n\n".join(parts))
    found = list(read_file(path, passage_chars=50).rows)
    assert [row.problem and row.problem.name for row in found] == [None, "broken_encoding", None]
    assert found[1].raw == parts[1]
    assert found[1].line == 3


def test_word_paragraphs_and_tables(tmp_path):
    document = docx.Document()
    for i in range(40):
        document.add_paragraph(f"第{i}段，说明。" * 5)
    table = document.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "问", "答"
    document.save(tmp_path / "a.docx")
    read = read_file(tmp_path / "a.docx", passage_chars=120)
    found = list(read.rows)
    assert len(found) > 10
    for row in found[:-1]:
        assert row.data["text"].startswith(f"第{row.line - 1}段")
    assert found[-1].data["text"].endswith("问\t答")
    assert read.kind == "docx"


def pdf(path, pages: list[list[str]]) -> None:
    canvas = Canvas(str(path), pagesize=A4)
    for lines in pages:
        for i, line in enumerate(lines):
            canvas.drawString(72, 700 - 20 * i, line)
        canvas.showPage()
    canvas.save()


def test_pdf_pages_with_their_lines_joined(tmp_path):
    wrapped = [
        "A lost bank card is reported at once and then",
        "it is blocked by the bank before anybody uses",
        "it.",
    ]
    pdf(tmp_path / "a.pdf", [wrapped, [], ["Title", "Second text. " * 3]])
    read = read_file(tmp_path / "a.pdf", passage_chars=100)
    first, last = list(read.rows)
    assert first.data["text"] == " ".join(wrapped)
    assert last.data["text"].startswith("Title\nSecond")
    assert (first.line, last.line) == (1, 3)
    assert read.notes == (("pages_without_text", {"file": "a.pdf", "count": 1, "pages": 3}),)


def test_a_scan_and_an_empty_document_are_told(tmp_path):
    pdf(tmp_path / "a.pdf", [[], []])
    with pytest.raises(DataError, match="OCR"):
        read_file(tmp_path / "a.pdf")
    docx.Document().save(tmp_path / "a.docx")
    with pytest.raises(DataError, match="no text"):
        read_file(tmp_path / "a.docx")
