"""Programs that are MCP servers: who may have them, which one answers whom, and when they end."""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from letta_common.clock import SystemClock
from letta_common.egress import AddressGuard
from letta_common.errors import InvalidArgument, IsolationUnavailable, MCPConnectionFailed, Overloaded, RateLimited
from letta_common.fair_slots import Shares
from letta_common.sealing import Sealer
from letta_sandbox.calls import Isolation, Limits
from letta_sandbox.destinations import Destinations, read_destinations
from letta_sandbox.egress import Egress
from letta_sandbox.local.programs import ProgramFailed, ProgramOptions, Programs
from letta_tools.domain.mcp.connections import MCPConnection
from letta_tools.domain.mcp.oauth import OAuthGrants
from letta_tools.providers.mcp import MCPOptions, StdioOptions
from letta_tools.providers.mcp_client import SDKClient
from letta_tools.providers.mcp_sessions import Session, Waits
from letta_tools.settings import ToolsSettings
from letta_tools.wiring import _program_options
from tests.fakes.destinations import destination
from tests.fakes.tools.oauth import FakeOAuthStore
from tests.support.bounds import within

SOURCE = """
import http.client, json, os, sys, time, urllib.parse

def fetched(port, direct):
    proxy = urllib.parse.urlsplit(os.environ.get("HTTPS_PROXY", "http://127.0.0.1:3128"))
    connection = http.client.HTTPConnection("127.0.0.1", port if direct else proxy.port, timeout=5)
    if not direct:
        connection.set_tunnel("127.0.0.1", port)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    except OSError as error:
        return type(error).__name__ + ": " + str(error)

for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    method, answer = message["method"], {"error": {"code": -32601, "message": "no"}}
    if method == "initialize":
        answer = {"result": {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                             "serverInfo": {"name": "x", "version": "1"}}}
    if method == "tools/list":
        answer = {"result": {"tools": []}}
    if method == "tools/call":
        name, args = message["params"]["name"], message["params"].get("arguments") or {}
        if name == "write":
            open("/tmp/kept", "a").write("x")
        if name == "nap":
            time.sleep(args["seconds"])
        if name == "fetch":
            os.environ["TOKEN"] = fetched(**args)
        said = open("/tmp/kept").read() if os.path.exists("/tmp/kept") else ""
        text = {"who": open("/proc/self/stat").read().split()[21], "token": os.environ.get("TOKEN", ""), "kept": said}
        answer = {"result": {"content": [{"type": "text", "text": json.dumps(text)}]}}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}), flush=True)
"""

LOOK = """
import json, os

def tried(path, mode):
    try:
        with open("{home}/" + path, mode) as file:
            return file.read()
    except (PermissionError, FileNotFoundError) as error:
        return "OSError" if mode == "a" else type(error).__name__
    except OSError:
        return "OSError"

os.environ["TOKEN"] = json.dumps([tried("shown/text", "r"), tried("beside/text", "r"), tried("shown/text", "a")])
"""


def program(organization_id="org-ann", server_id="mcp_server-1", **env):
    args = ("-I", "-S", "-c", SOURCE)
    place = {"organization_id": organization_id, "server_id": server_id}
    return MCPConnection("stdio", command=sys.executable, args=args, env=env, **place)


@asynccontextmanager
async def client(options=ProgramOptions(), paths=(), **stdio):  # noqa: B008
    readable = (sys.prefix, sys.base_prefix, *paths)
    chosen = StdioOptions(**{"enabled": True, "organizations": ("*",), **stdio})
    grants = OAuthGrants(FakeOAuthStore(), Sealer([b""]), SystemClock())
    made = SDKClient(AddressGuard(), MCPOptions(stdio=chosen), Programs(replace(options, readable=readable)), grants)
    try:
        async with within(120, "what a test asks of programs"):
            yield made
    finally:
        async with within(30, "the end of every program"):
            await made.close()


async def ask(made, connection, name="who", **arguments):
    good, text = await made.call_tool(connection, name, arguments, 10.0)
    assert good
    return text


async def test_one_process_answers_one_organization_and_server():
    async with client() as made:
        first = await ask(made, program())
        assert await ask(made, program()) == first
        others = [
            await ask(made, program("org-bob")),
            await ask(made, program(server_id="mcp_server-2")),
        ]
        assert len({first, *others}) == 3


async def test_other_variables_never_meet_a_process_that_holds_these():
    async with client() as made:
        ann, bob = await ask(made, program(TOKEN="ann")), await ask(made, program(TOKEN="bob"))
        assert '"token": "ann"' in ann
        assert '"token": "bob"' in bob
        assert await ask(made, program(TOKEN="ann")) == ann


async def test_questions_at_once_start_one_process():
    async with client() as made:
        answers = await asyncio.gather(*(ask(made, program()) for _ in range(8)))
        assert len(set(answers)) == 1


class Silent:
    """A program that says nothing."""

    def __init__(self):
        self.stdout = asyncio.StreamReader()
        self.errors = ""
        self.ends = 0

    async def write(self, data):
        pass

    async def close(self):
        self.ends += 1


async def test_a_session_that_is_closed_before_it_began_ends_its_program_and_its_questions():
    silent = Silent()
    session = Session(silent, 1000, Waits(60, 60))
    asked = asyncio.create_task(session.ask(60, lambda client: client.list_tools()))
    async with within(10, "the end of the session"):
        await session.close()
        with pytest.raises((ConnectionError, MCPConnectionFailed)):
            await asked
    assert (silent.ends, session.gone) == (1, True)


async def test_scratch_is_one_sessions_own():
    async with client(ProgramOptions(tiers=(Isolation.NAMESPACE,))) as made:
        assert '"kept": "x"' in await ask(made, program(), "write")
        assert '"kept": "x"' in await ask(made, program())
        assert '"kept": ""' in await ask(made, program("org-bob"))
        await made.end("org-ann", "mcp_server-1")
        assert '"kept": ""' in await ask(made, program())


@pytest.fixture
def below_tmp():
    """Return a directory below the real /tmp, which the scratch of a program covers."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        home = Path(made)
        home.chmod(0o755)
        for name in ("shown", "beside"):
            (home / name).mkdir(0o755)
            (home / name / "text").write_text(name)
        (home / "shown/server.py").write_text(LOOK.format(home=home) + SOURCE)
        yield home


async def test_what_lies_below_tmp_is_shown_and_nothing_beside_it(below_tmp):
    connection = replace(program(), args=("-I", "-S", str(below_tmp / "shown/server.py")))
    async with client(ProgramOptions(tiers=(Isolation.NAMESPACE,)), paths=(str(below_tmp / "shown"),)) as made:
        seen = json.loads(json.loads(await ask(made, connection))["token"])
    assert seen == ["shown", "FileNotFoundError", "OSError"]


@asynccontextmanager
async def fetching(listed, tier=Isolation.NAMESPACE):
    """Let programs reach what is listed; yield what asks one of them for a port on loopback."""
    egress = Egress(AddressGuard(("127.0.0.1",)), AddressGuard())
    options = ProgramOptions(tiers=(tier,), destinations=Destinations(read_destinations(listed)), egress=egress)

    async with client(options) as made:

        async def fetch(port, *, direct=False):
            return json.loads(await ask(made, program(), "fetch", port=port, direct=direct))["token"]

        yield fetch


async def test_listed_hosts_are_reached_through_the_proxy_and_nothing_else():
    with destination() as listed, destination() as other:
        port, closed = listed.server_address[1], other.server_address[1]
        async with fetching([f"127.0.0.1:{port}"]) as fetch:
            assert await fetch(port) == "hello"
            assert "403" in await fetch(closed)
            assert "refused" in await fetch(closed, direct=True)
        assert other.seen == []

        async with fetching([f"127.0.0.1:{closed}"]) as fetch:  # the control: it is the list that decides
            assert await fetch(closed) == "hello"


async def test_nothing_is_reached_when_nothing_is_listed():
    with destination() as server:
        async with fetching([]) as fetch:
            for direct in (True, False):
                assert "PermissionError" in await fetch(server.server_address[1], direct=direct)
        assert server.seen == []


async def test_nobody_asks_and_it_ends():
    async with client(idle_seconds=0.2) as made:
        first = await ask(made, program())
        for _ in range(20):
            await asyncio.sleep(0.5)
            if await ask(made, program()) != first:
                return
        raise AssertionError("it is still there")


async def test_a_server_that_is_not_kept_has_a_process_for_one_question():
    async with client() as made:
        assert len({await ask(made, program(server_id="")) for _ in range(2)}) == 2


async def test_idle_programs_make_room_and_busy_ones_do_not():
    async with client(shares=Shares(slots=2, tenant_slots=1)) as made:
        first = await ask(made, program())
        await ask(made, program(server_id="mcp_server-2"))
        assert await ask(made, program()) != first

        napping = asyncio.create_task(ask(made, program(), "nap", seconds=60))
        await asyncio.sleep(0.3)
        with pytest.raises(RateLimited):
            await ask(made, program(server_id="mcp_server-2"))
        other = asyncio.create_task(ask(made, program("org-bob"), "nap", seconds=60))
        await asyncio.sleep(0.3)
        with pytest.raises(Overloaded):
            await ask(made, program("org-carol"))
        for task in (napping, other):
            task.cancel()
        await asyncio.gather(napping, other, return_exceptions=True)


async def test_programs_count_as_the_memory_that_they_may_take():
    shares = Shares(slots=64, tenant_slots=8, size=4, tenant_size=2, leave_room=True)
    async with client(shares=shares, memory_bytes=1) as made:
        napping = [
            asyncio.create_task(ask(made, program(server_id=f"mcp_server-{at}"), "nap", seconds=60)) for at in range(2)
        ]
        await asyncio.sleep(0.3)
        with pytest.raises(RateLimited):
            await ask(made, program(server_id="mcp_server-3"))
        assert await ask(made, program("org-bob"))
        for task in napping:
            task.cancel()
        await asyncio.gather(*napping, return_exceptions=True)
        assert await ask(made, program(server_id="mcp_server-3")), "what has ended counts no longer"


@pytest.mark.parametrize(
    ("stdio", "why"),
    [
        ({"enabled": False}, "tools_mcp_stdio"),
        ({"organizations": ()}, "tools_mcp_stdio_organizations"),
        ({"organizations": ("org-bob",)}, "tools_mcp_stdio_organizations"),
        ({"commands": ("/opt/mcp/bin/files",)}, "tools_mcp_stdio_commands"),
    ],
)
async def test_who_may_have_which_programs(stdio, why):
    async with client(**stdio) as made:
        for attempt in (made.check(program()), made.list_tools(program())):
            with pytest.raises(InvalidArgument, match=why):
                await attempt


async def test_organizations_and_commands_that_are_named():
    async with client(organizations=("org-ann",), commands=(sys.executable,)) as made:
        await made.check(program())
        assert await made.list_tools(program()) == []


@pytest.mark.parametrize("name", ["PATH", "LD_PRELOAD", "LD_AUDIT", "NODE_OPTIONS", "PYTHONPATH", "BASH_ENV"])
async def test_a_variable_chooses_no_other_program_than_those_named(name):
    chosen = replace(program(), env={name: "/tmp/x"})
    async with client(commands=(sys.executable,)) as made:
        for attempt in (made.check(chosen), made.list_tools(chosen)):
            with pytest.raises(InvalidArgument, match="tools_mcp_stdio_commands"):
                await attempt
    async with client() as made:
        await made.check(chosen)


async def test_a_host_that_offers_too_little_is_told_with_the_setting():
    async with client(ProgramOptions(min_isolation=Isolation.VM)) as made:
        for attempt in (made.check(program()), made.list_tools(program())):
            with pytest.raises(IsolationUnavailable, match="tools_min_isolation"):
                await attempt


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        ({"mcp_stdio_organizations": ("org-1",)}, Isolation.LANDLOCK),
        ({"mcp_stdio_organizations": ("org-1", "org-2")}, Isolation.NAMESPACE),
        ({"mcp_stdio_organizations": ("*",)}, Isolation.NAMESPACE),
        ({"mcp_stdio_organizations": ("*",), "min_isolation": "vm"}, Isolation.VM),
    ],
)
def test_several_organizations_need_namespaces(settings, least, tmp_path):
    assert _program_options(ToolsSettings(home=tmp_path, **settings)).min_isolation is least


async def test_stdio_is_off_by_default(tmp_path):
    assert not ToolsSettings(home=tmp_path).mcp_stdio
    assert ToolsSettings(home=tmp_path).mcp_stdio_organizations == ()


@pytest.mark.parametrize("path", ["/", "/proc", "/etc", "/var", "/tmp"])
async def test_paths_that_would_show_too_much(path):
    programs = Programs(ProgramOptions(readable=(path,)))
    with pytest.raises((ProgramFailed, IsolationUnavailable), match="mcp_stdio_paths"):
        await programs.start("/bin/true", (), {})


async def test_a_directory_that_is_hidden_inside_of_what_is_shown():
    inside = Path(sys.prefix) / "lib"
    options = ProgramOptions(readable=(sys.prefix, sys.base_prefix), hidden=(str(inside),))
    program = await Programs(options).start("/bin/ls", (str(inside),), {})
    async with within(30, "the end of the program"):
        assert await program.stdout.read() == b""
    await program.close()


@pytest.mark.parametrize(
    ("command", "why"), [("/nonexistent", "No such file"), ("/etc/passwd", "denied|Exec format|No such file")]
)
async def test_a_program_that_cannot_be_started_is_named(command, why):
    async with client() as made:
        with pytest.raises(MCPConnectionFailed, match=why):
            await made.list_tools(replace(program(), command=command, args=()))


async def test_what_a_program_complains_of_is_told():
    async with client() as made:
        broken = replace(program(), args=("-I", "-S", "-c", "raise SystemExit('my configuration is wrong')"))
        with pytest.raises(MCPConnectionFailed, match="my configuration is wrong"):
            await made.list_tools(broken)


async def test_limits_of_a_program_are_its_own():
    limits = Limits(memory_bytes=64 << 20, scratch_bytes=1 << 20, processes=8, open_files=32)
    programs = Programs(ProgramOptions(limits=limits))
    program = await programs.start("/bin/sh", ("-c", "ulimit -n; ulimit -c; exec 9<&0; cat"), {})
    await program.write(b"echo\n")
    async with within(30, "the answer of the program"):
        answer = await program.stdout.readuntil(b"echo\n")
    assert answer.split() == [b"32", b"0", b"echo"]
    await program.close()
    with pytest.raises(ConnectionError):
        await program.write(b"more")


SERVICE = """
import asyncio
from letta_sandbox.calls import Isolation
from letta_sandbox.local.programs import ProgramOptions, Programs

async def main():
    program = await Programs(ProgramOptions(tiers=(Isolation.{tier},), interpreter="{python}")).start(
        "/bin/sh", ("-c", "trap '' TERM HUP; setsid sleep 60 & sleep 60"), {{}}
    )
    print(program._process.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("tier", ["NAMESPACE", "LANDLOCK"])
def test_nothing_stays_when_the_service_is_killed(tier):
    source = SERVICE.format(tier=tier, python=public_interpreter())
    service = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
    launcher = int(service.stdout.readline())
    assert alive(launcher)
    service.kill()
    service.wait()
    service.stdout.close()

    deadline = time.monotonic() + 20
    while alive(launcher) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(launcher)  # it ends after all that it started


def public_interpreter():
    """Return a Python that every user can read."""
    readable = all(parent.stat().st_mode & 0o001 for parent in Path(sys.base_prefix, "lib").parents)
    return "" if readable else "/usr/bin/python3"


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
