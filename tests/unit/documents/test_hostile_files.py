"""Files that are made to break who reads them: the right text or a typed error, and nothing else harmed."""

import csv
import io
import json
import os
import re
import zipfile
import zlib
from pathlib import Path

import pytest

from letta_common.errors import AppError, CorruptDocument, DocumentTooLarge, ExtractionTimedOut, UnsupportedMediaType
from tests.support.documents import book, changed, deflated, pdf, pdf_of, slides, stream_of, swollen, word

DOCUMENT = "word/document.xml"
SHEET = "xl/worksheets/sheet1.xml"
FINAL = (CorruptDocument, DocumentTooLarge, ExtractionTimedOut)


def resident() -> int:
    """Return how many bytes of memory this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(autouse=True)
async def unharmed(extractor):
    """After each file the next one is read as ever, and this process has not grown by what the file unpacks to."""
    await extractor.extract(b"before", media_type="", name="")
    before = resident()
    yield
    assert (await extractor.extract(b"after", media_type="", name="")).text == "after"
    assert resident() - before < 256 << 20


async def outcome(extract, data: bytes, name: str = "") -> str:
    """Return the text, or the name of the error."""
    try:
        return (await extract(data, name)).text
    except AppError as error:
        return error.reason


async def test_a_pdf_of_nothing_is_corrupt(extract):
    with pytest.raises(CorruptDocument):
        await extract(b"%PDF-1.7\n" + os.urandom(50_000))


async def test_a_pdf_that_was_cut_off_gives_what_is_whole_or_is_corrupt(extract):
    whole = pdf([f"Page {number}." for number in range(1, 30)])

    for share in (0.1, 0.5, 0.9, 0.99):
        found = await outcome(extract, whole[: int(len(whole) * share)])
        assert found == "CORRUPT_DOCUMENT" or found.startswith("[page 1]\nPage 1."), found


async def test_a_page_tree_that_loops_ends(extract):
    looping = pdf_of(
        [
            "<< /Type /Catalog /Pages 2 0 R >>",
            "<< /Type /Pages /Kids [2 0 R 3 0 R] /Count 2 >>",
            "<< /Type /Pages /Kids [2 0 R] >>",
        ]
    )

    with pytest.raises(FINAL):
        await extract(looping)


async def test_objects_that_are_each_other_end(extract):
    looping = pdf_of(
        [
            "<< /Type /Catalog /Pages 2 0 R >>",
            "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            "<< /Type /Page /Parent 2 0 R /MediaBox 4 0 R /Resources 4 0 R /Contents [5 0 R 4 0 R] >>",
            "4 0 R",
            "[5 0 R 5 0 R]",
        ]
    )

    assert await outcome(extract, looping) in ("[page 1]\n\n", *(error.reason for error in FINAL))


async def test_a_form_that_draws_itself_ends(extract):
    form = stream_of(
        b"/X Do BT (again) Tj ET", "/Type /XObject /Subtype /Form /Resources << /XObject << /X 5 0 R >> >>"
    )
    looping = pdf_of(
        [
            "<< /Type /Catalog /Pages 2 0 R >>",
            "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            "<< /Type /Page /Parent 2 0 R /Resources << /XObject << /X 5 0 R >> >> /Contents 4 0 R >>",
            stream_of(b"/X Do"),
            form,
        ]
    )

    assert await outcome(extract, looping) in (
        "[page 1]\n\n",
        "[page 1]\nagain\n\n",
        *(error.reason for error in FINAL),
    )


async def test_tables_of_places_that_follow_each_other_for_ever_end(extract):
    data = pdf(["One."])
    begin = int(re.findall(rb"startxref\n(\d+)", data)[0])
    looping = data.replace(b"trailer\n<<", b"trailer\n<< /Prev %d" % begin)

    assert await outcome(extract, looping) in ("[page 1]\nOne.\n\n", *(error.reason for error in FINAL))


async def test_a_pdf_that_says_it_has_a_thousand_million_pages_has_those_it_has(extract):
    assert (await extract(pdf(["One."], count=10**9))).text == "[page 1]\nOne.\n\n"


async def test_a_stream_that_unpacks_to_gigabytes_is_too_large(extract):
    packed = zlib.compress(deflated(b"(a) Tj ", 1 << 25), 9)
    bomb = pdf_of(
        [
            "<< /Type /Catalog /Pages 2 0 R >>",
            "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            "<< /Type /Page /Parent 2 0 R /Resources << /Font << /F1 5 0 R >> >> /Contents 4 0 R >>",
            stream_of(packed, "/Filter [/FlateDecode /FlateDecode]"),
            "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        ]
    )

    assert len(bomb) < 10_000
    with pytest.raises(DocumentTooLarge):
        await extract(bomb)


def saying(archive: bytes, name: str, size: int) -> bytes:
    """Return a ZIP file of which an entry says that it unpacks to another size."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        real = file.getinfo(name)
    sizes = real.compress_size.to_bytes(4, "little"), real.file_size.to_bytes(4, "little")
    assert archive.count(b"".join(sizes)) == 2  # in front of the entry, and in the directory
    return archive.replace(b"".join(sizes), sizes[0] + size.to_bytes(4, "little"))


@pytest.mark.parametrize(("make", "entry"), [(word, DOCUMENT), (book, SHEET), (slides, "ppt/slides/slide1.xml")])
async def test_an_entry_that_says_it_unpacks_to_gigabytes_is_too_large(extract, make, entry):
    with pytest.raises(DocumentTooLarge, match="unpacks to"):
        await extract(saying(make(), entry, (4 << 30) - 1))


async def test_a_bomb_of_a_few_kilobytes_is_too_large(extract):
    bomb = swollen(word(), "docProps/app.xml", b"", b"\0" * 4096, 1 << 17, b"")

    assert len(bomb) < 1 << 20
    with pytest.raises(DocumentTooLarge, match="unpacks to 53"):
        await extract(bomb)


async def test_an_entry_that_unpacks_to_more_than_it_says_is_corrupt(extract):
    bomb = changed(word(), {DOCUMENT: lambda data: data + b" " * (16 << 20)})

    with pytest.raises(CorruptDocument):
        await extract(saying(bomb, DOCUMENT, 100))


async def test_entries_that_share_their_bytes_are_corrupt(extract):
    file = bytearray(word())
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        first, second = (entry.header_offset for entry in archive.infolist()[:2])
    place = file.rindex(second.to_bytes(4, "little"), file.index(b"PK\x01\x02"))
    file[place : place + 4] = first.to_bytes(4, "little")

    with pytest.raises(CorruptDocument, match="overlap"):
        await extract(bytes(file))


async def test_a_sheet_of_more_than_the_text_may_have_is_too_large(extract):
    head = b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
    row = b'<row><c t="inlineStr"><is><t>' + b"x" * 200 + b"</t></is></c></row>"
    bomb = swollen(book(), SHEET, head, row, 1 << 16, b"</sheetData></worksheet>")

    assert len(bomb) < 2 << 20
    with pytest.raises(DocumentTooLarge):
        await extract(bomb)


async def test_a_sheet_that_says_it_is_as_large_as_can_be_has_the_rows_it_has(extract):
    def large(data: bytes) -> bytes:
        return re.sub(rb'<dimension ref="[^"]*"', b'<dimension ref="A1:XFD1048576"', data)

    assert (await extract(changed(book(), {SHEET: large}))).text == (await extract(book())).text


def laughing(data: bytes) -> bytes:
    levels = "".join(f'<!ENTITY l{level} "{f"&l{level - 1};" * 10}">' for level in range(1, 12))
    text = data.decode().replace("<?xml version='1.0' encoding='UTF-8' standalone='yes'?>", "")
    text = re.sub(r"^<\?xml[^>]*\?>", "", text)
    root = re.match(r"\s*<([\w:]+)", text)[1]
    text = f'<!DOCTYPE {root} [<!ENTITY l0 "laugh">{levels}]>' + text
    return re.sub(r"(<(?:w:t|t|v)(?: [^>]*)?>)", r"\1&l11;", text, count=1).encode()


def reaching_out(data: bytes) -> bytes:
    text = re.sub(r"^<\?xml[^>]*\?>", "", data.decode())
    root = re.match(r"\s*<([\w:]+)", text)[1]
    text = f'<!DOCTYPE {root} [<!ENTITY out SYSTEM "file:///etc/passwd">]>' + text
    return re.sub(r"(<(?:w:t|t|v)(?: [^>]*)?>)", r"\1&out;", text, count=1).encode()


@pytest.mark.parametrize("harm", [laughing, reaching_out])
@pytest.mark.parametrize(("make", "entry"), [(word, DOCUMENT), (book, SHEET), (book, "xl/sharedStrings.xml")])
async def test_entities_are_neither_expanded_nor_fetched(extract, make, entry, harm):
    found = await outcome(extract, changed(make(), {entry: harm}))

    assert "laughlaugh" not in found
    assert "root:" not in found


async def test_plain_xml_stays_as_it_is(extract):
    text = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY l0 "laugh"><!ENTITY l1 "&l0;&l0;">]><a>&l1;</a>\n'

    assert (await extract(text.encode(), "a.xml")).text == text


@pytest.mark.parametrize(
    ("make", "plain", "macro", "place"),
    [
        (
            word,
            b"application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml",
            b"application/vnd.ms-word.document.macroEnabled.main+xml",
            "word/vbaProject.bin",
        ),
        (
            book,
            b"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml",
            b"application/vnd.ms-excel.sheet.macroEnabled.main+xml",
            "xl/vbaProject.bin",
        ),
        (
            slides,
            b"application/vnd.openxmlformats-officedocument.presentationml.presentation.main+xml",
            b"application/vnd.ms-powerpoint.presentation.macroEnabled.main+xml",
            "ppt/vbaProject.bin",
        ),
    ],
)
async def test_a_file_with_macros_is_read_as_one_without(extract, make, plain, macro, place):
    types = {"[Content_Types].xml": lambda data: data.replace(plain, macro)}
    file = changed(make(), types, {place: b'Sub AutoOpen()\nShell "touch /tmp/ran"\nEnd Sub'})

    assert (await extract(file)).text == (await extract(make())).text


async def test_a_million_nested_tags_are_their_text(extract):
    page = "<html><body>" + "<div>" * 1_000_000 + "deep"

    assert (await extract(page.encode(), "a.html")).text == "deep\n\n"


@pytest.mark.parametrize("unit", ["<table>", "<ul>", "<pre>", "<svg>", "&", "<table><tr><td>"])
async def test_tags_that_are_never_closed_are_read(extract, unit):
    found = await extract(b"<html><p>first" + unit.encode() * 100_000, "a.html")

    assert found.text.startswith("first\n\n") or unit == "&"


async def test_a_field_of_four_megabytes_is_a_cell_and_one_of_fifty_is_too_large(extract):
    def table(size: int) -> bytes:
        out = io.StringIO()
        csv.writer(out).writerows([["a", "b"], ["x" * size, "1"]])
        return out.getvalue().encode()

    assert len((await extract(table(4 << 20), "a.csv")).text) > 4 << 20
    with pytest.raises(DocumentTooLarge):
        await extract(table(50 << 20), "a.csv")


async def test_json_that_is_nested_too_deeply_is_its_text(extract):
    text = "[" * 100_000 + "]" * 100_000
    document = await extract(text.encode(), "a.json")

    assert (document.media_type, document.text) == ("text/plain", text)


async def test_a_number_of_a_hundred_thousand_digits_is_its_text(extract):
    text = json.dumps({"a": 1}).replace("1", "1" * 100_000)

    assert (await extract(text.encode(), "a.json")).text == text


async def test_a_mail_of_ten_thousand_parts_is_read(extract):
    parts = "".join(f"--x\nContent-Type: text/plain\n\npart {number}\n\n" for number in range(10_000))
    data = f"From: a@b\nSubject: many\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n{parts}--x--\n"
    document = await extract(data.encode())

    assert document.text.count("part ") == 10_000


async def test_mails_in_mails_without_end_are_read_or_corrupt(extract):
    data = "From: a@b\nSubject: deep\nMIME-Version: 1.0\n" + "Content-Type: message/rfc822\n\n" * 20_000 + "\n\nend"

    assert await outcome(extract, data.encode()) is not None


async def test_multiparts_in_multiparts_without_end_are_read_or_given_up(extract):
    heads = "".join(f"Content-Type: multipart/mixed; boundary=b{number}\n\n--b{number}\n" for number in range(3_000))
    data = f"From: a@b\nSubject: deep\nMIME-Version: 1.0\n{heads}Content-Type: text/plain\n\nend"

    assert await outcome(extract, data.encode()) is not None


async def test_bytes_that_are_broken_are_marked_and_the_rest_is_read(extract):
    document = await extract("schön und grün, ".encode() * 100 + b"\xff\xfe\x80 end", "a.txt")

    assert document.text.startswith("schön und grün, ")
    assert document.text.endswith("\ufffd\ufffd\ufffd end")


async def test_many_zero_bytes_are_no_text(extract):
    with pytest.raises(UnsupportedMediaType):
        await extract(b"a\0\0\0" * 1000, "a.txt")


@pytest.mark.parametrize(
    "text",
    [
        "#" * 2_000_000,
        "# " + " " * 2_000_000 + "a",
        "|" + "-|" * 1_000_000 + "x",
        "|a|\n" + "|-" + " " * 1_000_000 + "x\n",
        "<!---->" * 500 + "x" * 100,
        "{" + " " * 1_000_000,
        "def " * 500_000,
        "a: " * 500_000,
        "\n" * 2_000_000,
    ],
    ids=range(9),
)
@pytest.mark.parametrize("name", ["a.md", "a.py", "a"])
async def test_text_that_patterns_could_get_lost_in_is_read(extract, text, name):
    assert (await extract(text.encode(), name)).text == text
