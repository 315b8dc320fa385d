"""Runs one tool in the process of its call and says how it ended. Whatever a tool does here it does to itself."""

from __future__ import annotations
import __future__

import contextlib
import dataclasses
import enum
import errno
import importlib
import inspect
import json
import linecache
import mmap
import os
import resource
import socket
import sys
import threading
import traceback
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any

from letta_sandbox.inside.agent_state import AgentState
from letta_sandbox.inside.fitting import fitted

_NAME = "tool"
_FILE = "<tool>"
_TEXT_LIMIT = 8192
_FORBIDDEN = {errno.EPERM, errno.EACCES, errno.EROFS}
_HINT = (
    "Tools run isolated: no other processes, no files of the host, and no network but the hosts that the setting "
    "tools_egress_hosts or egress_hosts of the sandbox configuration lists, reached through the proxy of HTTPS_PROXY"
)
_NOBODY = {errno.ECONNREFUSED, errno.ENETUNREACH}
_PROXY = "http://127.0.0.1:3128"
_OF_PROXY = ("tools_egress_hosts", "tools_egress_allowed_hosts")
# Given back when memory is used up, so that there is some left to say so.
_BALLAST = 1 << 20
_OUT_OF_MEMORY = b'{"status":"MEMORY","kind":"MemoryError","message":"the tool used up its memory","traceback":""}'
_NO_TEXT = (
    b'{"status":"TOOL_ERROR","kind":"Exception","message":"the tool raised an error without text","traceback":""}'
)

_REHEARSAL = "def rehearsal(number: int):\n    return number\n"
_AS_TEXT = __future__.annotations.compiler_flag

# Kept from before the tool runs, which may replace what modules have.
_exit = os._exit
_close = os.close
_usage = resource.getrusage
_write = os.write
_decode = json.JSONDecoder().decode


def _plain(value: Any) -> Any:
    """Turn models, dataclasses and enums into what JSON has. Raises TypeError for everything else."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, enum.Enum):
        return value.value
    raise TypeError(f"a result of type {type(value).__name__} is not JSON")


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_plain, separators=(",", ":")).encode


def serve(request_fd: int, result_fd: int) -> None:
    """Read the request, run the tool, write the frame, end the process."""
    text, _, attachment = _read_all(request_fd).partition(b"\n")
    request = _decode(text.decode())
    if request["attached"]:
        request["attachment"] = attachment
    token = request["token"].encode()
    answer = _answer(request)
    # The tool may have closed or replaced both streams; its result must be written all the same.
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
    with contextlib.suppress(BaseException):
        sys.stderr.flush()
    frame = memoryview(token + answer)
    while frame:
        frame = frame[_write(result_fd, frame) :]
    _close(result_fd)
    _exit(0)


def rehearse(modules: Iterable[str]) -> None:
    """Go once through what a call goes through, so that the memory it touches is this process's own already.

    Runs confined, and the process serves one call: modules of a tenant may do here what they may do in the call.
    """
    for name in modules:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    values = {"source": _REHEARSAL, "function": "", "arguments": '{"number": 0}', "borrowed": []}
    _answer({**values, "environment": {}, "agent_state": "", "result_bytes": 100})


def _read_all(file: int) -> bytes:
    parts = []
    while part := os.read(file, 1 << 20):
        parts.append(part)
    os.close(file)
    return b"".join(parts)


def _answer(request: dict[str, Any]) -> bytes:
    """Return the frame of a call, which may be that of a failure."""
    ballast = mmap.mmap(-1, _BALLAST, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # counted, but not touched
    try:
        # The 8 MiB that a thread reserves otherwise would soon use up the address space of the call.
        threading.stack_size(1 << 20)
        os.environ.update(request["environment"])
        state = AgentState(_decode(request["agent_state"])) if request["agent_state"] else None
        value = _run(request, state)
        return _success(value, state, int(request["result_bytes"]))
    except BaseException as error:
        ballast.close()
        return _failure_or_less(error)


def _run(request: dict[str, Any], state: AgentState | None) -> Any:
    function = _load(request["source"], request["function"], request["borrowed"])
    arguments = fitted(function, _decode(request["arguments"]))
    parameters = inspect.signature(function).parameters
    if state is not None and "agent_state" in parameters:
        arguments["agent_state"] = state
    if "attachment" in request:
        arguments["attachment"] = request["attachment"]
    if "self" in parameters:  # a method that was taken out of its class, or a function in the style of old tools
        arguments["self"] = state
    value = function(**arguments)
    if inspect.isawaitable(value):
        return importlib.import_module("asyncio").run(_await(value))
    if inspect.isasyncgen(value):
        return importlib.import_module("asyncio").run(_collect(value))
    return list(value) if inspect.isgenerator(value) else value


async def _await(value: Any) -> Any:
    return await value


async def _collect(value: Any) -> list[Any]:
    return [item async for item in value]


def _load(source: str, name: str, borrowed: Iterable[list[str]]) -> Callable[..., Any]:
    module = types.ModuleType(_NAME)
    module.__file__ = _FILE
    # Classes of a tool look for their module there, among others those of dataclasses and pydantic.
    sys.modules[_NAME] = module
    # Tracebacks show lines of the source, though there is no such file.
    linecache.cache[_FILE] = (len(source), None, source.splitlines(keepends=True), _FILE)
    for lent, place, attribute in borrowed:
        module.__dict__[lent] = _lent(place, attribute)
    # Annotations stay text: those that name what did not come along with the source do not matter then.
    code = compile(source, _FILE, "exec", flags=_AS_TEXT, dont_inherit=True)
    exec(code, module.__dict__)  # noqa: S102 - this is what a tool is
    function = module.__dict__.get(name or _last_function(module))
    if not callable(function):
        raise NameError(f"the source defines no function {name!r}")  # noqa: TRY004 - the name is what is wrong
    return typing.cast("Callable[..., Any]", function)


def _lent(place: str, attribute: str) -> Any:
    """Return what source uses without an import. Raises ImportError."""
    module = importlib.import_module(place)
    return getattr(module, attribute, None) if attribute else sys.modules[place.partition(".")[0]]


def _last_function(module: types.ModuleType) -> str:
    own = [key for key, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == _NAME]
    if not own:
        raise NameError("the source defines no function")
    return own[-1]


def _success(value: Any, state: AgentState | None, most: int) -> bytes:
    changes = state.changes() if state is not None else {}
    try:
        frame = {"status": "SUCCESS", "value": value, "changes": changes, "usage": _used()}
        text = _encode(frame).encode(errors="surrogatepass")
    except (TypeError, ValueError, RecursionError, AttributeError) as error:
        return _frame("BAD_RESULT", type(error).__name__, f"the result is not JSON: {_text(error)}")
    except MemoryError:
        return _frame(
            "OUTPUT_LIMIT", "ResultTooLarge", f"the result does not fit into memory as JSON, the limit is {most}"
        )
    # 200 bytes for what surrounds the result in the frame.
    if len(text) > most + 200:
        return _frame("OUTPUT_LIMIT", "ResultTooLarge", f"the result has {len(text)} bytes, the limit is {most}")
    return text


def _failure_or_less(error: BaseException) -> bytes:
    try:
        return _failure(error)
    except BaseException:
        return _OUT_OF_MEMORY if isinstance(error, MemoryError) else _NO_TEXT


def _failure(error: BaseException) -> bytes:
    chain = _chain(error)
    if any(isinstance(link, MemoryError) for link in chain):
        return _frame("MEMORY", "MemoryError", "the tool used up its memory")
    message = _text(error) + _advice(error)
    if isinstance(error, SystemExit):
        message = f"the tool called sys.exit({message})"
    status = "TOOL_ERROR"
    if any(_is_forbidden(link) for link in chain):
        status, message = "DENIED", f"{message}. {_HINT}."
    return _frame(status, type(error).__name__, message, _frames(error))


def _advice(error: BaseException) -> str:
    """Return what to do about names and modules that are not there."""
    if isinstance(error, ModuleNotFoundError):
        return ". Name the package in pip_requirements of the tool."
    if isinstance(error, NameError) and not isinstance(error, UnboundLocalError):
        return ". A tool has what its source imports and defines: write the import into the function."
    return ""


def _is_forbidden(error: BaseException) -> bool:
    if isinstance(error, socket.gaierror):
        return True
    if type(error).__module__ == "ssl":  # its numbers are not those of the system
        return False
    if isinstance(error, OSError) and (error.errno in _FORBIDDEN or _goes_past_proxy(error)):
        return True
    return any(setting in _text(error) for setting in _OF_PROXY)


def _goes_past_proxy(error: OSError) -> bool:
    """Say whether a connection found nothing, because there is nothing but the proxy."""
    return error.errno in _NOBODY and os.environ.get("HTTPS_PROXY") == _PROXY


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and what it came from, at most twenty."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and all(link is not seen for seen in chain) and len(chain) < 20:
        chain.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return chain


def _text(error: BaseException) -> str:
    try:
        return str(error)[:_TEXT_LIMIT]
    except BaseException:
        return "(its text cannot be had)"


def _frames(error: BaseException) -> str:
    try:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == _FILE]
        return "".join(traceback.format_list(frames[-20:]))[-_TEXT_LIMIT:]
    except BaseException:
        return ""


def _frame(status: str, kind: str, message: str, frames: str = "") -> bytes:
    values = {"status": status, "kind": kind, "message": message, "traceback": frames, "usage": _used()}
    return _encode(values).encode(errors="surrogatepass")


def _used() -> list[float]:
    """Return seconds of processor and bytes of memory so far."""
    usage = _usage(resource.RUSAGE_SELF)
    return [usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024]
