"""Writes docs/reference from the contracts and the settings: `python -m scripts.reference [--check]`."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo

from letta.jsonmap.v1 import annotations_pb2 as jsonmap
from letta_common.errors import BY_REASON
from letta_common.process.settings import SERVICES, Settings
from letta_rpc.startup.setting_names import LIST
from scripts.contracts import ROOT, Contracts, Method, ServiceContract, read_contracts
from scripts.reference_rest import rest_page

REFERENCE = ROOT / "docs" / "reference"
PACKAGES = ("agent", "memory", "tools", "llm", "auth")
MADE = "<!-- Made by `make docs` from {source}. Do not edit. -->\n\n"
REPEATABLE = {"NO_SIDE_EFFECTS": "read", "IDEMPOTENT": "yes", "IDEMPOTENCY_UNKNOWN": "no"}
RPC_HEAD = """\
Every method by service. HTTP paths are those of the gateway; a public method without one is called as
`POST /rpc/<service>/<method>`. `internal` methods answer UNIMPLEMENTED to callers that are not a service of the
deployment. Repeatable: `read` changes nothing, `yes` may be sent again, `no` needs a key of its own. Clients of
this repository send again exactly the first two, on UNAVAILABLE only. Any call may answer the general ones of
[errors](errors.md), the first sixteen; a method names the others worth handling.
"""
ERRORS_HEAD = """\
A failed call carries `google.rpc.ErrorInfo` with domain `letta` and one of these reasons; ids and numbers stand in its
metadata. Over HTTP the status is the one given here, and the body `{"detail": ...}` where nothing else is said.
Fields that are wrong are a list of at most 32, and of 2,800 bytes, which every client of gRPC takes; a last one, `...`,
says that there are more. REST shows the same list, in one process too. A text that is cut ends in `...`.
"""
SETTINGS_HEAD = """\
The first source that has a value wins: arguments of a command, `LETTA_<SERVICE>_X` in the environment, `LETTA_X`,
`~/.letta/config.json` (an object of keys; an object under the name of a service is for it alone), the default.
Lists and objects are JSON. Secrets are never logged.

## Every service

`LETTA_<SERVICE>_X` sets one for one service: `LETTA_MEMORY_DATABASE_URL`. `LETTA_PG_URI` is read as
`LETTA_DATABASE_URL` when that is not set. The `letta` command sends `LETTA_API_KEY` as its credential.
"""
SHAPES = {
    jsonmap.ERROR_BODY_ERROR_OBJECT: '`{"error": {"type", "message", "detail"}}`',
    jsonmap.ERROR_BODY_DETAIL_OBJECT: '`{"detail": {"code", "message", ...}}`',
    jsonmap.ERROR_BODY_DETAIL_WITH_CODE: '`{"detail", "error_code", ...}`',
}
_PREFIX = "ERROR_REASON_"
_WORD = re.compile(r"(?<![`\w])[A-Z]{2,}(?:_[A-Z]+)*(?![`\w])")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as an operator sees it."""

    variables: tuple[str, ...]
    key: str
    default: str
    description: str


def pages(contracts: Contracts) -> dict[str, str]:
    """Return the text of each page by file name."""
    return {
        "rpc.md": rpc_page(contracts),
        "rest.md": MADE.format(source="`v1/operations.tsv` of the gateway and `proto/`") + rest_page(contracts),
        "errors.md": errors_page(contracts),
        "settings.md": settings_page(),
    }


def rpc_page(contracts: Contracts) -> str:
    """Return the page of every RPC."""
    lines = [MADE.format(source="`proto/`") + "# RPCs\n"]
    lines.append(RPC_HEAD)
    reasons = set(BY_REASON)
    for package in PACKAGES:
        lines.append(f"## letta.{package}.v1\n")
        for service in contracts.services:
            if service.package == f"letta.{package}.v1":
                lines.extend(_service(service, reasons))
    return "\n".join(lines)


def _service(service: ServiceContract, reasons: set[str]) -> Iterator[str]:
    yield f"### {service.name.rpartition('.')[2]}\n"
    yield f"{_cell(service.comment, reasons)} [`{service.file}`](../../proto/{service.file})\n"
    yield "| RPC | HTTP | repeatable | what it does |\n|---|---|---|---|"
    for method in service.methods:
        cells = (_signature(method), _places(method), REPEATABLE[method.idempotency], _cell(method.comment, reasons))
        yield f"| {' | '.join(cells)} |"
    yield ""


def _signature(method: Method) -> str:
    streams = {
        (False, True): " (answers a stream)",
        (True, False): " (takes a stream)",
        (True, True): " (streams both ways)",
    }
    return f"`{method.proto.name}`" + streams.get((method.proto.client_streaming, method.proto.server_streaming), "")


def _places(method: Method) -> str:
    if method.mapping.internal:
        return "internal"
    places = [f"`{verb} {path}`" for verb, path in method.http] or ["/rpc"]
    if method.mapping.scopes:
        places.append("scope " + " or ".join(f"`{scope}`" for scope in method.mapping.scopes))
    return "<br>".join(places)


def errors_page(contracts: Contracts) -> str:
    """Return the page of every error reason."""
    lines = [MADE.format(source="`proto/letta/common/v1/error_reason.proto`") + "# Errors\n"]
    lines.append(ERRORS_HEAD)
    lines.append("| reason | gRPC | HTTP | when |\n|---|---|---|---|")
    for value, comment in contracts.reasons:
        name = value.name.removeprefix(_PREFIX)
        mapping = value.options.Extensions[jsonmap.error]
        code = BY_REASON[name].code.name if name in BY_REASON else "-"
        status = str(mapping.http_status) + _shape(mapping.body)
        lines.append(f'| <a id="{name.lower()}"></a>`{name}` | {code} | {status} | {_cell(comment, set())} |')
    return "\n".join(lines) + "\n"


def _shape(body: jsonmap.ErrorBody.ValueType) -> str:
    shape = SHAPES.get(body)
    return f"<br>{shape}" if shape else ""


def settings_page() -> str:
    """Return the page of every setting."""
    lines = [MADE.format(source="the `settings.py` of each service") + "# Settings\n"]
    lines.append(SETTINGS_HEAD)
    shared = own_settings(Settings)
    lines.extend(_settings_table(shared))
    for service in SERVICES:
        kind = settings_class(service)
        if kind is None:
            continue
        lines.append(f"## {service}\n")
        known = {(setting.key, setting.default) for setting in shared}
        own = [setting for setting in own_settings(kind) if (setting.key, setting.default) not in known]
        lines.extend(_settings_table(own))
    return "\n".join(lines)


def setting_names() -> str:
    """Return the list that a start compares what it is given with."""
    shared = set(Settings.model_fields)
    own = [(name, kind) for name in SERVICES if (kind := settings_class(name))]
    names = shared | {f"{name}.{key}" for name, kind in own for key in set(kind.model_fields) - shared}
    return "".join(f"{name}\n" for name in sorted(names))


def _settings_table(settings: Iterable[Setting]) -> Iterator[str]:
    yield "| variable | key | default | what it is |\n|---|---|---|---|"
    for setting in settings:
        variables = "<br>".join(f"`{name}`" for name in setting.variables)
        default = f"`{setting.default}`" if setting.default else ""
        yield f"| {variables} | `{setting.key}` | {default} | {_cell(setting.description, set())} |"
    yield ""


def settings_class(service: str) -> type[Settings] | None:
    """Return the settings of a service, or None when it has none."""
    if importlib.util.find_spec(f"letta_{service}.settings") is None:
        return None
    module = importlib.import_module(f"letta_{service}.settings")
    kinds = (kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Settings))
    return next((kind for kind in kinds if kind is not Settings), None)


def own_settings(kind: type[Settings]) -> list[Setting]:
    """Return the settings of a class in the order they are declared."""
    return [_setting(kind, name, field) for name, field in kind.model_fields.items()]


def _setting(kind: type[Settings], name: str, field: FieldInfo) -> Setting:
    prefix = f"LETTA_{kind.service.upper()}_" if kind.service and name not in Settings.model_fields else "LETTA_"
    if name == "bind" and kind.service:
        prefix = f"LETTA_{kind.service.upper()}_"
    variables = [f"{prefix}{name.upper()}"]
    if isinstance(field.validation_alias, AliasChoices):
        variables += [str(choice) for choice in field.validation_alias.choices if str(choice).isupper()]
    return Setting(tuple(variables), name, _default(name, field), field.description or "")


def _default(name: str, field: FieldInfo) -> str:
    if name == "home":
        return "~/.letta"
    value: Any = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None or value == "":
        return ""
    if isinstance(value, Enum):
        value = value.value
    return str(value) if isinstance(value, str | Path) else json.dumps(value)


def _cell(text: str, reasons: set[str]) -> str:
    """Return a comment on one line; reasons become links."""
    line = " ".join(text.split()).replace("|", "\\|")

    def linked(found: re.Match[str]) -> str:
        word = found.group()
        return f"[`{word}`](errors.md#{word.lower()})" if word in reasons else word

    return _WORD.sub(linked, line)


def main(arguments: list[str]) -> int:
    """Write the pages; with --check, say which are out of date instead."""
    made = {REFERENCE / name: text for name, text in pages(read_contracts()).items()} | {LIST: setting_names()}
    if "--check" in arguments:
        stale = [path for path, text in made.items() if not _is(path, text)]
        for path in stale:
            sys.stderr.write(f"{path.relative_to(ROOT)} is out of date: run 'make docs' and commit the result\n")
        return 1 if stale else 0
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for path, text in made.items():
        path.write_text(text)
    return 0


def _is(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
