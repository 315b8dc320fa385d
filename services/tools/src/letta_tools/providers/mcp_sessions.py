"""Sessions with MCP servers that are programs: one process for each organization and server, kept while it is used."""

from __future__ import annotations

import asyncio
import hashlib
import json
import weakref
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from mcp import Client, MCPError
from mcp.types import Implementation
from pydantic import ValidationError

from letta_common.errors import AppError, InvalidArgument, MCPConnectionFailed, Overloaded, RateLimited
from letta_common.fair_slots import FairSlots, Grant
from letta_sandbox.local.programs import Program, ProgramFailed, Programs
from letta_tools.domain.mcp.connections import MCPConnection
from letta_tools.providers.mcp import StdioOptions
from letta_tools.providers.mcp_listings import Listings
from letta_tools.providers.mcp_stdio import Lines, stdio_transport

# Variables by which whoever sets the environment of a program chooses what runs in its place, or inside of it.
_NAMING_CODE = {"PATH", "NODE_OPTIONS", "BASH_ENV", "ENV", "PERL5OPT", "RUBYOPT", "JAVA_TOOL_OPTIONS", "GCONV_PATH"}
_NAMING_CODE_PREFIXES = ("LD_", "PYTHON", "BASH_FUNC_")
CLIENT_INFO = Implementation(name="letta-tools", version="1")
_T = TypeVar("_T")
_Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Waits:
    """Longest waits for a program to begin, and for one that nobody asks."""

    begin_seconds: float
    idle_seconds: float


class Session:
    """A program and the conversation with it. One task owns both: the SDK is left where it was entered."""

    def __init__(self, program: Program, most_bytes: int, waits: Waits) -> None:
        self.asking = 0
        self.used_at = asyncio.get_running_loop().time()
        self._program = program
        self._lines = Lines(program, most_bytes)
        self._waits = waits
        self._stop = asyncio.Event()
        self._gone = asyncio.Event()
        self._client: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._ended: list[Callable[[], None]] = []
        self._task = asyncio.create_task(self._live())
        self._task.add_done_callback(self._tell_ended)

    @property
    def usable(self) -> bool:
        """Whether the program is there to be asked."""
        return not (self._gone.is_set() or self._stop.is_set() or self._task.done())

    @property
    def gone(self) -> bool:
        """Whether the program says no more."""
        return self._gone.is_set()

    @property
    def fault(self) -> str:
        """What is known of why the program ended or cannot be spoken to."""
        said = self._program.errors[-500:]
        return self._lines.fault + (f"; it said: {said}" if said else "")

    async def ask(self, seconds: float, question: Callable[[Client], Awaitable[_T]]) -> _T:
        """Ask the program. Raises TimeoutError, MCPError, MCPConnectionFailed."""
        self.asking += 1
        gone = asyncio.create_task(self._gone.wait())
        try:
            async with asyncio.timeout(seconds):
                # Several questions wait for one client: the first that gives up must not cancel it.
                client = await asyncio.shield(self._client)
                asked = asyncio.ensure_future(question(client))
                # A question that fails after its time would else be reported as never looked at.
                asked.add_done_callback(_noticed)
                try:
                    await asyncio.wait({asked, gone}, return_when=asyncio.FIRST_COMPLETED)
                    if not asked.done():
                        raise MCPConnectionFailed(f"the program ended during the call{_told(self.fault)}")
                    return await asked
                finally:
                    asked.cancel()
        finally:
            gone.cancel()
            self.asking -= 1
            self.used_at = asyncio.get_running_loop().time()
            if not self.asking and self._stop.is_set():
                self._cancel()

    def retire(self) -> None:
        """Take no more questions; end once the last one is answered."""
        self._stop.set()
        if not self.asking:
            self._cancel()

    def when_ended(self, then: Callable[[], None]) -> None:
        """Do something once the program has ended with everything that came of it."""
        self._ended.append(then)

    async def ended(self) -> None:
        """Return when the program has ended with everything that came of it."""
        await asyncio.wait({self._task})

    async def close(self) -> None:
        """End the program with everything that came of it."""
        self._stop.set()
        self._cancel()
        await self.ended()

    def _cancel(self) -> None:
        # A task that is cancelled before its first step never takes it, and would leave program and questions alone.
        asyncio.get_running_loop().call_soon(self._task.cancel)

    def _tell_ended(self, _task: asyncio.Task[None]) -> None:
        for then in self._ended:
            then()

    async def _live(self) -> None:
        try:
            async with asyncio.timeout(self._waits.begin_seconds):
                client = Client(self._transport(), client_info=CLIENT_INFO, cache=None)
                entered = await client.__aenter__()
            try:
                self._client.set_result(entered)
                await self._idle()
            finally:
                await client.__aexit__(None, None, None)
        except BaseException as error:
            if not self._client.done():
                self._client.set_exception(error if isinstance(error, Exception) else ConnectionError("it was ended"))
                # Perhaps nobody waits for it, and asyncio would complain of that.
                self._client.exception()
            if not isinstance(error, Exception):
                raise
        finally:
            self._gone.set()
            # The program must end also when this task is cancelled meanwhile.
            await asyncio.shield(self._program.close())

    @asynccontextmanager
    async def _transport(self) -> Any:
        async with stdio_transport(self._program, self._lines, self._gone.set) as (read, write):
            yield Listings(read), write

    async def _idle(self) -> None:
        """Return when the program has ended, or nobody has asked it for long."""
        while not self._gone.is_set():
            left = self.used_at + self._waits.idle_seconds - asyncio.get_running_loop().time()
            if left <= 0 and not self.asking:
                return
            with suppress(TimeoutError):
                # A question may outlast the idle time: then this looks again soon.
                async with asyncio.timeout(max(left, 0.05)):
                    await self._gone.wait()


class Sessions:
    """Finds or begins the session of a connection."""

    def __init__(self, programs: Programs, options: StdioOptions, most_bytes: int, waits: Waits) -> None:
        self._programs = programs
        self._options = options
        self._most_bytes = most_bytes
        self._waits = waits
        self._sessions: dict[_Key, Session] = {}
        self._beginning: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._slots = FairSlots(options.shares, "stdio MCP servers")
        self._leaving: dict[asyncio.Task[None], tuple[str, Session]] = {}
        self._once = 0

    async def check(self, connection: MCPConnection) -> None:
        """Refuse what may not be started. Raises InvalidArgument, IsolationUnavailable."""
        options = self._options
        if not options.enabled:
            raise InvalidArgument("stdio MCP servers are switched off; the setting tools_mcp_stdio allows them")
        if not {"*", connection.organization_id} & set(options.organizations):
            raise InvalidArgument(
                f"stdio MCP servers are not allowed for {connection.organization_id}; the setting "
                "tools_mcp_stdio_organizations names the organizations that may have them",
            )
        if options.commands and connection.command not in options.commands:
            raise InvalidArgument(
                f"`{connection.command}` is not among the programs of the setting tools_mcp_stdio_commands",
                field="config.command",
            )
        # Where every program is allowed, nothing is gained by naming another one.
        if options.commands and (chosen := sorted(filter(_names_code, connection.env))):
            raise InvalidArgument(
                f"the variable {chosen[0][:100]} could have another program run than those of the setting "
                "tools_mcp_stdio_commands",
                field="config.env",
            )
        await self._programs.isolation()

    async def ask(self, connection: MCPConnection, seconds: float, question: Callable[[Client], Awaitable[_T]]) -> _T:
        """Ask the program of a connection, which is started if it does not run.

        Raises:
            TimeoutError: it did not answer; a program that did not answer once is asked nothing more.
            MCPError: it answered with an error.
            MCPConnectionFailed: it cannot be started, or has ended.
            RateLimited: the organization has too many programs at work.
            Overloaded: the host has.
        """
        await self.check(connection)
        key = (connection.organization_id, connection.server_id, self._fingerprint(connection))
        # One at a time in an organization, or two questions would start one program twice.
        async with self._beginning.setdefault(key[0], asyncio.Lock()):
            self._forget_ended()
            session = self._sessions.get(key)
            if session is None:
                session = self._sessions[key] = await self._begin(connection)
        try:
            return await self._ask(session, seconds, question)
        except (TimeoutError, MCPConnectionFailed):
            session.retire()
            raise
        finally:
            if not connection.server_id:
                session.retire()
            self._forget_ended()

    async def end(self, organization_id: str, server_id: str) -> None:
        """End what runs of a server."""
        for key in [key for key in self._sessions if key[:2] == (organization_id, server_id)]:
            await self._sessions.pop(key).close()

    async def close(self) -> None:
        """End everything."""
        sessions = [*self._sessions.values(), *(session for _, session in self._leaving.values())]
        self._sessions.clear()
        await asyncio.gather(*(session.close() for session in sessions))

    async def _ask(self, session: Session, seconds: float, question: Callable[[Client], Awaitable[_T]]) -> _T:
        try:
            return await session.ask(seconds, question)
        except MCPError as error:
            if session.gone:
                raise MCPConnectionFailed(f"the program ended during the call{_told(session.fault)}") from error
            raise
        except (AppError, TimeoutError, ValidationError):
            raise
        except Exception as error:
            raise MCPConnectionFailed(
                f"the program cannot be spoken to: {type(error).__name__}{_told(session.fault)}"
            ) from error

    async def _begin(self, connection: MCPConnection) -> Session:
        grant = await self._make_room(connection.organization_id)
        try:
            program = await self._programs.start(connection.command or "", connection.args, connection.env)
        except BaseException as error:
            self._slots.give(grant)
            if isinstance(error, ProgramFailed):
                raise MCPConnectionFailed(f"the program cannot be started: {error}") from error
            raise
        session = Session(program, self._most_bytes, self._waits)
        # Its memory is free only when everything that came of the program has ended.
        session.when_ended(lambda: self._slots.give(grant))
        return session

    async def _make_room(self, organization_id: str) -> Grant:
        """Take a slot; end programs that nobody asks until there is one. Raises RateLimited, Overloaded."""
        while (grant := self._slots.try_take(organization_id, self._options.memory_bytes)) is None:
            idle = [key for key, session in self._sessions.items() if not session.asking]
            # Whoever needs room gives up a program of its own before one of others.
            idle = [key for key in idle if key[0] == organization_id] or idle
            if self._slots.held_by(organization_id) and not idle:
                raise RateLimited("the organization has too many MCP servers at work at once")
            if not idle:
                raise Overloaded("too many MCP servers are at work at once")
            await self._sessions.pop(min(idle, key=lambda key: self._sessions[key].used_at)).close()
        return grant

    def _forget_ended(self) -> None:
        """Take sessions that are over out of the way of new ones; those still answering end by themselves."""
        for key in [key for key, session in self._sessions.items() if not session.usable]:
            session = self._sessions.pop(key)
            task = asyncio.create_task(session.ended())
            self._leaving[task] = (key[0], session)
            task.add_done_callback(self._leaving.pop)

    def _fingerprint(self, connection: MCPConnection) -> str:
        """Tell connections apart by what their program is given: nobody meets a program that holds other secrets.

        A connection of no server yet has a program of its own.
        """
        if not connection.server_id:
            self._once += 1
            return str(self._once)
        parts = [connection.command, list(connection.args), sorted(connection.env.items())]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _names_code(variable: str) -> bool:
    return variable in _NAMING_CODE or variable.startswith(_NAMING_CODE_PREFIXES)


def _noticed(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()


def _told(fault: str) -> str:
    return f" ({fault.lstrip('; ')})" if fault else ""
