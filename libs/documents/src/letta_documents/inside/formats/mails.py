"""E-mails: their main fields, their text, and attachments that are text."""

from __future__ import annotations

import email
import email.errors
import email.policy
from collections.abc import Iterator
from email.message import EmailMessage, MIMEPart

from letta_documents.inside.decoding import decode
from letta_documents.inside.faults import Corrupt, Unsupported
from letta_documents.inside.formats import html_pages
from letta_documents.inside.writing import TextWriter, flat

_FIELDS = ("From", "To", "Cc", "Date", "Subject")
_DEEPEST = 50


def write_mail(writer: TextWriter, data: bytes) -> None:
    """Write a mail. Raises Corrupt."""
    try:
        message = email.message_from_bytes(data, policy=email.policy.default)
        assert isinstance(message, EmailMessage)  # noqa: S101 - what this policy makes
        _write_message(writer, message)
    except (email.errors.MessageError, RecursionError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise Corrupt(f"it is no mail that can be read: {error}") from error


def _write_message(writer: TextWriter, message: EmailMessage) -> None:
    fields = [(name, flat(str(message[name]))) for name in _FIELDS if message[name] is not None]
    writer.title = next((value for name, value in fields if name == "Subject"), "")
    writer.section(1, writer.title)
    writer.paragraph("\n".join(f"{name}: {value}" for name, value in fields))
    body = message.get_body(("plain", "html"))
    if body is not None:
        _write_text(writer, body, body.get_content_type())
    for part in _others(message, body):
        _write_attachment(writer, part)


def _others(message: EmailMessage, body: object) -> Iterator[MIMEPart]:
    """Yield all that is neither the body nor another form of it."""
    waiting: list[tuple[MIMEPart, int]] = [(message, 0)]
    while waiting:
        part, depth = waiting.pop()
        if part is body:
            continue
        if not part.is_multipart():
            yield part
        elif depth < _DEEPEST and not _is_other_form(part, body):
            inner = part.get_payload()
            assert isinstance(inner, list)  # noqa: S101 - what a multipart message has
            waiting += [(each, depth + 1) for each in reversed(inner) if isinstance(each, MIMEPart)]


def _is_other_form(part: MIMEPart, body: object) -> bool:
    return part.get_content_subtype() == "alternative" and any(each is body for each in part.walk())


def _write_attachment(writer: TextWriter, part: MIMEPart) -> None:
    kind = part.get_content_type()
    name = flat(part.get_filename() or "")
    if not kind.startswith("text/"):
        writer.paragraph(f"Attachment: {name or 'without a name'} ({kind})")
        return
    writer.heading(2, f"Attachment: {name or kind}")
    _write_text(writer, part, kind)


def _write_text(writer: TextWriter, part: MIMEPart, kind: str) -> None:
    data = part.get_payload(decode=True)
    try:
        text = decode(data if isinstance(data, bytes) else b"", part.get_content_charset() or "")
    except Unsupported:
        text = "(no text)"
    if kind == "text/html":
        html_pages.write_page(writer, text)
    else:
        writer.paragraph(text)
