"""Finds out what a file is: by its content; its name only chooses between kinds of text."""

from __future__ import annotations

import re
import zipfile
from io import BytesIO

from letta_documents.inside import archives
from letta_documents.inside.faults import Corrupt, Protected, Unsupported
from letta_documents.inside.formats import json_texts

PDF = "application/pdf"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PPTX = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
HTML, MAIL, CSV, TSV = "text/html", "message/rfc822", "text/csv", "text/tab-separated-values"
JSON, JSON_LINES, MARKDOWN, PLAIN, SOURCE = (
    "application/json",
    "application/jsonl",
    "text/markdown",
    "text/plain",
    "text/x-source",
)

_OFFICE = (("word/", DOCX), ("ppt/", PPTX), ("xl/", XLSX))
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# The stream of an Office file that is encrypted, in the directory of its container.
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_OTHERS = (
    (_OLE, "an Office file in the old binary format; save it as DOCX, XLSX or PPTX"),
    (b"{\\rtf", "an RTF file; save it as DOCX"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"\x1f\x8b", "a compressed file"),
    (b"7z\xbc\xaf", "a compressed file"),
    (b"BZh", "a compressed file"),
    (b"Rar!", "a compressed file"),
    (b"\x7fELF", "a program"),
    (b"%!PS", "a PostScript file"),
)
_SOURCES = (
    *("bash", "c", "cc", "cfg", "clj", "conf", "cpp", "cs", "css", "cxx", "dart", "erl", "ex", "exs", "fs", "go"),
    *("gradle", "groovy", "h", "hh", "hpp", "hs", "ini", "java", "jl", "js", "jsx", "kt", "kts", "less", "lua", "m"),
    *("mjs", "ml", "mm", "nim", "php", "pl", "pm", "proto", "ps1", "py", "pyi", "pyx", "r", "rb", "rs", "sass"),
    *("scala", "scss", "sh", "sol", "sql", "svelte", "swift", "tf", "toml", "ts", "tsx", "v", "vb", "vue", "xml"),
    *("xsd", "xsl", "yaml", "yml", "zig", "zsh"),
)
_NAMES = {
    "md": MARKDOWN,
    "markdown": MARKDOWN,
    "mdx": MARKDOWN,
    "csv": CSV,
    "tsv": TSV,
    "tab": TSV,
    "json": JSON,
    "jsonl": JSON_LINES,
    "ndjson": JSON_LINES,
    "htm": HTML,
    "html": HTML,
    "xhtml": HTML,
    "eml": MAIL,
    "mht": MAIL,
    "mhtml": MAIL,
    **dict.fromkeys(_SOURCES, SOURCE),
}
_STATED = {kind: kind for kind in (MARKDOWN, CSV, TSV, JSON, JSON_LINES, HTML, MAIL)} | {
    "application/xhtml+xml": HTML,
    "application/x-ndjson": JSON_LINES,
    "text/x-markdown": MARKDOWN,
    "application/csv": CSV,
}
_LIKE_HTML = re.compile(
    r"(?>\s+|<\?xml[^>]*>|<!--.*?-->)*+(?:<!doctype\s+html|<html\b|<head\b|<body\b)", re.IGNORECASE | re.DOTALL
)
_LIKE_XML = re.compile(r"\s*<\?xml\b")
_FIELD = re.compile(r"[!-9;-~]+:")
_MAIL_FIELDS = re.compile(
    r"^(?:From|To|Subject|Date|Received|Return-Path|Message-ID|MIME-Version|Delivered-To|Content-Type|Reply-To):",
    re.IGNORECASE | re.MULTILINE,
)
_BEGINNING = 4096


def kind_of_bytes(data: bytes) -> str:
    """Return what bytes are when they are no text; nothing when they may be. Raises Fault for what is not read."""
    if b"%PDF-" in data[:1024]:
        return PDF
    if data[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _kind_of_archive(data)
    if data.startswith(_OLE) and _ENCRYPTED in data:
        raise Protected("it needs a password")
    for mark, what in _OTHERS:
        if data.startswith(mark):
            raise Unsupported(f"it is {what}")
    return ""


def _kind_of_archive(data: bytes) -> str:
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            archives.require_bounded(archive)
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, NotImplementedError) as error:
        raise Corrupt(f"its ZIP container cannot be read: {error}") from error
    if "[Content_Types].xml" in names:
        for place, kind in _OFFICE:
            if any(name.startswith(place) for name in names):
                return kind
    raise Unsupported("it is an archive and no DOCX, PPTX or XLSX file")


def kind_of_text(text: str, *, media_type: str, name: str) -> str:
    """Return which kind of text it is."""
    beginning = text[:_BEGINNING]
    if _LIKE_HTML.match(beginning):
        return HTML
    hint = _hint(media_type, name)
    if hint not in (JSON, MAIL, ""):
        return hint
    return _kind_of_content(text, hint) or (SOURCE if _LIKE_XML.match(beginning) else PLAIN)


def _kind_of_content(text: str, hint: str) -> str:
    """Return what a text shows itself to be, mail or JSON; nothing when it is neither."""
    beginning = text[:_BEGINNING]
    if _is_mail(beginning) and (hint == MAIL or len(_MAIL_FIELDS.findall(beginning)) > 1):
        return MAIL
    if json_texts.is_json(text):
        return JSON
    return JSON_LINES if json_texts.is_lines(text) else ""


def _hint(media_type: str, name: str) -> str:
    ending = name.rpartition(".")[2].lower() if "." in name else ""
    return _NAMES.get(ending) or _STATED.get(media_type.partition(";")[0].strip().lower(), "")


def _is_mail(beginning: str) -> bool:
    """Whether a text begins with fields, as mails do."""
    first = beginning.lstrip("\n").partition("\n")[0]
    return bool(_FIELD.match(first) or first.startswith("From ")) and bool(_MAIL_FIELDS.search(beginning))
