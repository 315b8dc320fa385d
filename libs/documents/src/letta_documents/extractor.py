"""Extracts the text of files in a process of its own for each, confined as custom tools are."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from letta_common.errors import (
    AppError,
    CorruptDocument,
    DocumentProtected,
    DocumentTooLarge,
    ExtractionTimedOut,
    IsolationUnavailable,
    ServiceUnavailable,
    UnsupportedMediaType,
)
from letta_common.fair_slots import Shares
from letta_documents.documents import Document, Part, PartKind
from letta_sandbox.calls import CallEnding, Env, Isolation, IsolationReport, Limits, Result, SandboxCall
from letta_sandbox.local.hosts import OwnPackages
from letta_sandbox.local.provider import LocalOptions, LocalProvider

_SOURCE = "from letta_documents.inside.readings import read"
# The parsers, and what they need: all that the isolated process may read besides the standard library.
_OWN = OwnPackages(
    packages=(
        *("letta_documents", "charset_normalizer", "pypdf", "cryptography", "cffi", "_cffi_backend"),
        *("docx", "pptx", "openpyxl", "et_xmlfile", "lxml", "PIL", "xlsxwriter", "typing_extensions"),
    ),
    modules=("letta_documents.inside.warmups",),
)
_FAULTS: dict[str, type[AppError]] = {
    "Unsupported": UnsupportedMediaType,
    "Corrupt": CorruptDocument,
    "Protected": DocumentProtected,
    "TooLarge": DocumentTooLarge,
}
# Faults of the sandbox and none of the file.
_NOT_STARTED = {"SandboxDied", "IsolationFailed", "NotStarted", "BadRequest"}
_KINDS = {kind.value: kind for kind in PartKind}
_ROOM_FOR_PARTS = 32 << 20
_MOST_SAID = 500


@dataclass(frozen=True, slots=True)
class ExtractorOptions:
    """How files may be parsed on this host. `min_isolation`, `allow_unsandboxed` and `interpreter` are as for tools.

    `most_bytes` and `most_characters` are limits of a file and of its text, `memory_bytes` and `timeout_seconds` of the
    process that parses it.
    """

    min_isolation: Isolation = Isolation.LANDLOCK
    allow_unsandboxed: bool = False
    interpreter: str = ""
    tiers: tuple[Isolation, ...] = (Isolation.NAMESPACE, Isolation.LANDLOCK)
    most_bytes: int = 50 << 20
    most_characters: int = 5_000_000
    memory_bytes: int = 512 << 20
    timeout_seconds: float = 60.0
    shares: Shares = field(default_factory=lambda: Shares(slots=4, tenant_slots=2, waiting=256))


class Extractor:
    """Extracts the text of files."""

    def __init__(self, options: ExtractorOptions) -> None:
        self._options = options
        self._limits = Limits(
            timeout_seconds=options.timeout_seconds,
            memory_bytes=options.memory_bytes,
            scratch_bytes=1 << 20,
            processes=8,
            # A character has at most four bytes.
            result_bytes=4 * options.most_characters + _ROOM_FOR_PARTS,
        )
        self._provider = LocalProvider(
            LocalOptions(
                min_isolation=options.min_isolation,
                allow_unsandboxed=options.allow_unsandboxed,
                interpreter=options.interpreter,
                tiers=options.tiers,
                limits=self._limits,
                shares=options.shares,
                prefork=1,
                own=_OWN,
                what="documents",
            )
        )

    async def isolation(self) -> IsolationReport:
        """Find out which isolation this host offers."""
        return await self._provider.probe()

    async def extract(self, data: bytes, *, media_type: str, name: str, organization_id: str = "") -> Document:
        """Return the text of a file; `media_type` and `name` are what is said of it. Cancelling ends the process.

        Raises:
            UnsupportedMediaType: the file has no text that can be read.
            CorruptDocument: it breaks its format, or its parser.
            DocumentProtected: it needs a password.
            DocumentTooLarge: it, its text or what parsing takes is beyond the limits.
            ExtractionTimedOut: parsing takes too long.
            IsolationUnavailable: nothing here isolates strongly enough.
            RateLimited: too many files of the organization wait.
            ServiceUnavailable: the process could not be started.
        """
        options = self._options
        if len(data) > options.most_bytes:
            raise DocumentTooLarge(
                f"the file has {len(data)} bytes, the limit is {options.most_bytes}", limit=str(options.most_bytes)
            )
        said = {"media_type": media_type[:_MOST_SAID], "name": name[-_MOST_SAID:]}
        arguments = json.dumps({**said, "most_characters": options.most_characters})
        call = SandboxCall(_SOURCE, "read", arguments, limits=self._limits, attachment=data)
        try:
            result = await self._provider.run(call, Env(organization_id=organization_id))
        except IsolationUnavailable as error:
            missing = error.metadata.get("missing", "")
            raise IsolationUnavailable(
                f"files cannot be parsed, as that cannot be isolated strongly enough here: {missing}", missing=missing
            ) from error
        self._require_success(result)
        return await asyncio.to_thread(_document, result.result, options.most_characters)

    def _require_success(self, result: Result) -> None:
        options, failure = self._options, result.failure
        if result.status is CallEnding.SUCCESS:
            return
        if failure is not None and failure.kind in _NOT_STARTED:
            raise ServiceUnavailable(f"the parser could not be started: {failure.message}. Try again.")
        if result.status is CallEnding.TIMEOUT:
            raise ExtractionTimedOut(f"parsing the file takes longer than {options.timeout_seconds:g} seconds")
        if result.status is CallEnding.MEMORY:
            raise DocumentTooLarge(f"parsing the file takes more than {options.memory_bytes >> 20} MiB of memory")
        if result.status is CallEnding.OUTPUT_LIMIT:
            raise DocumentTooLarge("the text of the file is larger than the limit")
        raise CorruptDocument(f"the file broke its parser: {result.status.value}")

    async def close(self) -> None:
        """End every process."""
        await self._provider.close()


def _document(result: str, most_characters: int) -> Document:
    """Read what the parser wrote, of which nothing is trusted. Raises the error of a fault."""
    try:
        values = json.loads(result)
        if "fault" in values:
            raise _FAULTS[values["fault"]](f"the file cannot be read: {str(values['message'])[:_MOST_SAID]}")
        text = _text(values["text"], most_characters)
        return Document(
            media_type=_text(values["media_type"], _MOST_SAID),
            text=text,
            parts=tuple(_parts(values["parts"], len(text))),
            title=_text(values["title"], _MOST_SAID),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptDocument("the file broke its parser: its answer is none") from error


def _text(value: Any, most: int) -> str:
    if not isinstance(value, str) or len(value) > most or "\0" in value:
        raise ValueError("no text")
    return value


def _parts(values: list[Any], length: int) -> list[Part]:
    """Read parts, which must follow each other from the beginning to the end. Raises ValueError."""
    parts: list[Part] = []
    at = 0
    for kind, start, end, titles, page, header in values:
        if start != at or not start < end <= length or not 0 <= header <= end - start or page < 0:
            raise ValueError("parts do not follow each other")
        named = tuple(_text(title, _MOST_SAID) for title in titles)
        parts.append(Part(_KINDS[kind], int(start), int(end), named, int(page), int(header)))
        at = end
    if at != length:
        raise ValueError("parts are missing")
    return parts
