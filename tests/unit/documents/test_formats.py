"""The text of each format, and the places in it."""

import io
import zipfile
from email.message import EmailMessage

import pypdf
import pytest

from letta_common.errors import DocumentProtected, UnsupportedMediaType
from letta_documents.chunks import chunks
from letta_documents.documents import PartKind
from tests.support.documents import book, changed, pdf, slides, word

DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
TEXT = "Der Fluß fließt. Ça va, naïve façade, señor? Überall ähnliche Wörter für größere Prüfungen.\n"


def parts_of(document):
    return [(part.kind.value, part.titles, part.page, document.text[part.start : part.end]) for part in document.parts]


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252"],
)
async def test_text_is_read_in_its_encoding(extract, encoding):
    document = await extract((TEXT * 3).encode(encoding), "a.txt")

    assert (document.media_type, document.text) == ("text/plain", TEXT * 3)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("shift_jis", "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。" * 4),
        ("koi8-r", "Все счастливые семьи похожи друг на друга, каждая несчастлива по-своему. " * 4),
        ("cp1251", "Все счастливые семьи похожи друг на друга, каждая несчастлива по-своему. " * 4),
        ("gb18030", "滚滚长江东逝水,浪花淘尽英雄。是非成败转头空。青山依旧在,几度夕阳红。" * 4),
    ],
)
async def test_encodings_of_other_scripts_are_detected(extract, encoding, text):
    assert (await extract(text.encode(encoding), "a.txt")).text == text


async def test_a_few_letters_beyond_ascii_are_those_of_western_europe(extract):
    assert (await extract("Le café est là.".encode("latin-1"), "a.txt")).text == "Le café est là."


async def test_a_stated_encoding_counts_where_bytes_do_not_tell(extract):
    document = await extract("Zażółć".encode("iso-8859-2"), "a.txt", "text/plain; charset=iso-8859-2")

    assert document.text == "Zażółć"


async def test_line_ends_are_of_one_kind_and_what_is_no_character_is_left_out(extract):
    document = await extract(b"a\r\nb\rc\x00d\x07e\n", "a.txt")

    assert document.text == "a\nb\ncde\n"


async def test_an_empty_file_is_an_empty_text(extract):
    document = await extract(b"", "a.pdf", "application/pdf")

    assert (document.media_type, document.text, document.parts) == ("text/plain", "", ())
    assert chunks(document, 100) == []


async def test_markdown_has_sections_tables_and_code(extract):
    text = "Intro\n\n# A\n\none\n\nB\n---\n\n|x|y|\n|-|-|\n|1|2|\n\n```py\n# no heading\n```\nafter\n\n# C\n"
    document = await extract(text.encode(), "notes.md")

    assert (document.media_type, document.text, document.title) == ("text/markdown", text, "A")
    assert parts_of(document) == [
        ("text", (), 0, "Intro\n\n"),
        ("text", ("A",), 0, "# A\n\none\n\n"),
        ("text", ("A", "B"), 0, "B\n---\n\n"),
        ("table", ("A", "B"), 0, "|x|y|\n|-|-|\n|1|2|\n"),
        ("text", ("A", "B"), 0, "\n"),
        ("code", ("A", "B"), 0, "```py\n# no heading\n```\n"),
        ("text", ("A", "B"), 0, "after\n\n"),
        ("text", ("C",), 0, "# C\n"),
    ]
    assert document.parts[3].header == len("|x|y|\n|-|-|\n")


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        (
            "a.py",
            "import os\n\n\n@cached\ndef f(a):\n    return a\n\n\nclass B:\n    def g(self):\n        pass\n",
            ["", "f", "B", "B.g"],
        ),
        ("a.ts", "import x from 'y';\n\nexport async function f() {\n}\n\nexport class B {\n}\n", ["", "f", "B"]),
        ("a.go", "package a\n\nfunc F() {\n}\n\nfunc (b *B) G() {\n}\n", ["", "F", "G"]),
        ("a.rs", "use a;\n\n/// about\npub fn f() {\n}\n\nimpl B {\n    pub fn g() {}\n}\n", ["", "f", "B", "B.g"]),
        ("a.sql", "-- tables\nCREATE TABLE t (\n  a int\n);\n", ["t"]),
    ],
)
async def test_source_code_has_its_definitions(extract, name, text, names):
    document = await extract(text.encode(), name)

    assert (document.media_type, document.text) == ("text/x-source", text)
    assert [part.titles[-1] if part.titles else "" for part in document.parts] == names
    assert {part.kind for part in document.parts} == {PartKind.CODE}


async def test_what_belongs_to_a_definition_comes_with_it(extract):
    document = await extract(b"import os\n\n# about f\n@cached\ndef f(a):\n    return a\n", "a.py")

    assert parts_of(document)[1] == ("code", ("f",), 0, "# about f\n@cached\ndef f(a):\n    return a\n")


async def test_json_has_a_part_for_each_key(extract):
    text = '{\n  "ships": [1, 2],\n  "tolls": {\n    "Ann": 12\n  }\n}\n'
    document = await extract(text.encode(), "a.txt")

    assert (document.media_type, document.text) == ("application/json", text)
    assert [part.titles for part in document.parts] == [(), ("ships",), ("tolls",)]


async def test_json_of_one_long_line_is_indented(extract):
    items = ",".join(f'{{"number": {number}}}' for number in range(300))
    document = await extract(f"[{items}]".encode(), "a.json")

    assert document.text.startswith('[\n  {\n    "number": 0\n  },\n')
    assert document.parts[5].titles == ("[4]",)


async def test_json_lines_are_cut_between_lines(extract):
    text = "".join(f'{{"number": {number}, "text": "some words"}}\n' for number in range(50))
    document = await extract(text.encode(), "a.txt")

    assert document.media_type == "application/jsonl"
    assert all(chunk.text.startswith("{") and chunk.text.endswith("}") for chunk in chunks(document, 200))


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t")])
async def test_delimited_text_is_a_table(extract, name, delimiter):
    text = f'name{delimiter}says\nAnn{delimiter}"a, b;\nc"\n\nBob{delimiter}x|y\n'
    document = await extract(text.encode(), name)

    assert document.text == "| name | says |\n|---|---|\n| Ann | a, b; c |\n| Bob | x\\|y |\n\n"
    assert document.parts[0].kind is PartKind.TABLE


async def test_html_is_its_text(extract):
    page = b"""<!-- c --><!DOCTYPE html><html><head><title>The &amp; page</title><style>p{}</style></head><body>
    <h1>Harbour</h1><p>Ships <b>come</b>
    at noon.<script>alert("no")</script><ul><li>rope<li>tar</ul><h2>Tolls</h2>
    <table><tr><th>ship<th>toll<tr><td>Ann<td><p>12</p></table><pre>a
  b</pre>end"""
    document = await extract(page, "page.txt")

    assert (document.media_type, document.title) == ("text/html", "The & page")
    assert document.text == (
        "# Harbour\n\nShips come at noon.\n\n- rope\n- tar\n\n## Tolls\n\n"
        "| ship | toll |\n|---|---|\n| Ann | 12 |\n\n```\na\n  b\n```\n\nend\n\n"
    )
    assert document.parts[2].titles == ("Harbour", "Tolls")


def mail() -> bytes:
    message = EmailMessage()
    message["From"] = "Ann <ann@example.com>"
    message["To"] = "bob@example.com"
    message["Subject"] = "Ropes für morgen"
    message.set_content("Bring ropes.\n")
    message.add_alternative("<p>Bring <b>ropes</b>.</p>", subtype="html")
    message.add_attachment("a,b\n1,2\n", subtype="csv", filename="list.csv")
    message.add_attachment(b"\x89PNG...", maintype="image", subtype="png", filename="rope.png")
    return message.as_bytes()


async def test_a_mail_has_its_fields_text_and_attachments(extract):
    document = await extract(mail(), "a.bin")

    assert (document.media_type, document.title) == ("message/rfc822", "Ropes für morgen")
    assert document.text == (
        "From: Ann <ann@example.com>\nTo: bob@example.com\nSubject: Ropes für morgen\n\nBring ropes.\n\n"
        "## Attachment: list.csv\n\na,b\n1,2\n\nAttachment: rope.png (image/png)\n\n"
    )
    assert document.parts[1].titles == ("Ropes für morgen", "Attachment: list.csv")


async def test_a_mail_without_plain_text_is_its_html(extract):
    document = await extract(b"Subject: a\nMIME-Version: 1.0\nContent-Type: text/html\n\n<p>one<p>two", "a.eml")

    assert document.text == "Subject: a\n\none\n\ntwo\n\n"


async def test_a_pdf_has_its_pages(extract):
    document = await extract(pdf(["First page.", "Second page."]), "a.txt", "text/plain")

    assert document.media_type == "application/pdf"
    assert parts_of(document) == [
        ("text", (), 1, "[page 1]\nFirst page.\n\n"),
        ("text", (), 2, "[page 2]\nSecond page.\n\n"),
    ]


async def test_an_encrypted_pdf_needs_its_password(extract):
    file = pypdf.PdfWriter(clone_from=io.BytesIO(pdf(["Secret."])))
    file.encrypt("word", algorithm="AES-256")
    out = io.BytesIO()
    file.write(out)

    with pytest.raises(DocumentProtected):
        await extract(out.getvalue())


async def test_a_pdf_that_only_its_owner_may_change_is_read(extract):
    file = pypdf.PdfWriter(clone_from=io.BytesIO(pdf(["Not secret."])))
    file.encrypt("", "owner", algorithm="AES-128")
    out = io.BytesIO()
    file.write(out)

    assert (await extract(out.getvalue())).text == "[page 1]\nNot secret.\n\n"


async def test_a_word_file_has_headings_lists_and_tables(extract):
    document = await extract(word(), "a.pdf", "application/pdf")

    assert (document.media_type, document.title) == (DOCX, "Harbour report")
    assert document.text == (
        "# Harbour\n\nShips come at noon.\n\n- rope\n- tar\n\n## Tolls\n\n"
        "| ship | toll |\n|---|---|\n| Ann\\|e | 12 |\n\n"
    )
    assert [part.titles for part in document.parts] == [("Harbour",), ("Harbour", "Tolls"), ("Harbour", "Tolls")]


async def test_slides_have_titles_texts_tables_and_notes(extract):
    document = await extract(slides())

    assert document.text == (
        "## Slide 1: Tides\n\nHigh at six.\n\nNotes: Say it slowly.\n\n"
        "## Slide 2\n\n| day | hour |\n|---|---|\n| Monday | 6 |\n\n"
    )
    assert [(part.page, part.titles) for part in document.parts] == [
        (1, ("Slide 1: Tides",)),
        (2, ("Slide 2",)),
        (2, ("Slide 2",)),
    ]


async def test_sheets_are_tables(extract):
    document = await extract(book())

    assert document.text == (
        "## Sheet: Costs\n\n| item | cost |\n|---|---|\n| item 0 | 0 |\n| item 1 | 1.5 |\n| item 2 | 3 |\n\n"
        "## Sheet: Notes\n\n| only one |\n|---|\n\n"
    )
    assert [part.page for part in document.parts] == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "picture"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "old binary format"),
        (b"{\\rtf1 hello}", "RTF"),
        (bytes(range(256)) * 20, "no text"),
        (b"\x7fELF" + b"\0" * 50, "program"),
    ],
)
async def test_what_is_no_text_is_refused_whatever_is_said_of_it(extract, data, what):
    with pytest.raises(UnsupportedMediaType, match=what):
        await extract(data, "a.txt", "text/plain")


async def test_an_archive_is_no_document(extract):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.txt", "hello")

    with pytest.raises(UnsupportedMediaType, match="archive"):
        await extract(out.getvalue(), "a.docx", DOCX)


async def test_a_word_file_under_another_name_of_its_main_part_type_is_read(extract):
    def macro(data: bytes) -> bytes:
        plain = b"application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
        return data.replace(plain, b"application/vnd.ms-word.document.macroEnabled.main+xml")

    document = await extract(changed(word(), {"[Content_Types].xml": macro}, {"word/vbaProject.bin": b"\xcc" * 500}))

    assert "Ships come at noon." in document.text
