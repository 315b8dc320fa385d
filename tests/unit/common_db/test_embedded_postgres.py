"""The embedded server: it starts, ends with its owner, keeps its data and says what is wrong."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import psycopg
import pytest

from letta_embedded_postgres.directory import (
    DirectoryInUse,
    EmbeddedPostgresError,
    SocketPathTooLong,
    StartFailed,
    VersionMismatch,
    processes_in,
)
from letta_embedded_postgres.launcher import EmbeddedPostgres, PostgresOptions, default_socket_dir
from letta_embedded_postgres.programs import find_programs

LOOSE = PostgresOptions(durable=False)
OWNER = """
import os, sys, time
from pathlib import Path
from letta_embedded_postgres import EmbeddedPostgres, PostgresOptions
if len(sys.argv) > 2:
    os.setgroups([])
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[2]))
    sys.executable = sys.argv[3]
server = EmbeddedPostgres(Path(sys.argv[1]), PostgresOptions(durable=False))
try:
    server.start()
except Exception as error:
    print(type(error).__name__, error, flush=True)
    raise SystemExit(1)
print("ready", server.pid, server.dsn(), flush=True)
time.sleep(600)
"""
WITHOUT_NAMESPACES = """
import ctypes, os, sys
from pathlib import Path
unshared, mapped = os.pipe(), os.pipe()
outside = os.getpid()
mapper = os.fork()
if mapper == 0:
    os.read(unshared[0], 1)
    Path(f"/proc/{outside}/uid_map").write_text("0 0 70000")
    Path(f"/proc/{outside}/gid_map").write_text("0 0 70000")
    os.write(mapped[1], b"x")
    os._exit(0)
if ctypes.CDLL(None).unshare(0x10000000) != 0:
    os.kill(mapper, 9)
    raise SystemExit("skip: no user namespaces here")
os.write(unshared[1], b"x")
os.read(mapped[0], 1)
os.waitpid(mapper, 0)
Path("/proc/sys/user/max_user_namespaces").write_text("0")
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
as_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")


@pytest.fixture
def home():
    """Make a short directory that other users may enter."""
    path = Path(tempfile.mkdtemp(prefix="letta-pg-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def owner(home):
    """Start owners of a server in processes of their own."""
    started = []

    def start(data_dir=home / "pg", arguments=(), prefix=()):
        command = [sys.executable, *prefix, "-c", OWNER, str(data_dir), *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        line = process.stdout.readline().split(maxsplit=2)
        if line[0] == "skip:":
            pytest.skip(line[-1])
        assert line[0] == "ready", line
        return process, int(line[1]), line[2].strip()

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
    places = {path.parent for path in home.glob("**/PG_VERSION") if (path.parent / "global").is_dir()}
    _until(lambda: not any(processes_in(place) for place in places))
    for place in places:
        for directory in Path("/tmp").glob(f"letta-*-{default_socket_dir(place).name.rsplit('-', 1)[1]}"):
            shutil.rmtree(directory)


def _until(true, patience=30.0):
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def _query(dsn, statement):
    with psycopg.connect(dsn, autocommit=True) as conn:
        cursor = conn.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_start_stop_and_start_keep_the_data(home):
    server = EmbeddedPostgres(home / "pg")
    server.start()
    _query(server.dsn(), "create table kept as select 1 as n")
    assert _query(server.dsn(), "show fsync") == [("on",)]
    server.stop()
    assert server.pid is None
    assert processes_in(home / "pg") == []

    with server:
        assert _query(server.dsn(), "select n from kept") == [(1,)]
    server.stop()
    assert not Path(server.dsn().split("host=")[1].split("&")[0]).exists()


async def test_it_starts_from_an_event_loop(home):
    server = EmbeddedPostgres(home / "pg", LOOSE)
    await server.start_async()
    pid = server.pid
    await asyncio.sleep(0.1)
    assert server.pid == pid
    await server.stop_async()
    assert processes_in(home / "pg") == []


def test_parameters_reach_the_server(home):
    options = PostgresOptions(durable=False, parameters={"shared_preload_libraries": "pg_stat_statements"})
    with EmbeddedPostgres(home / "pg", options) as server:
        assert _query(server.dsn(), "show shared_preload_libraries") == [("pg_stat_statements",)]
        _query(server.dsn(), "create extension pg_stat_statements")
        assert _query(server.dsn(), "select count(*) > 0 from pg_stat_statements") == [(True,)]


def test_killing_the_owner_leaves_nothing_and_the_next_starts_at_once(home, owner):
    process, _, dsn = owner()
    _query(dsn, "create table kept as select 1 as n")
    process.kill()
    process.wait()
    with EmbeddedPostgres(home / "pg", LOOSE) as server:
        assert _query(server.dsn(), "select n from kept") == [(1,)]

    process, _, _ = owner()
    process.kill()
    _until(lambda: not processes_in(home / "pg"))


def test_a_killed_postmaster_is_started_again_with_its_data(home):
    with EmbeddedPostgres(home / "pg") as server:
        _query(server.dsn(), "create table kept as select 1 as n")
        killed = server.pid
        os.kill(killed, signal.SIGKILL)

        def answers():
            try:
                return _query(server.dsn(), "select n from kept") == [(1,)]
            except psycopg.OperationalError:
                return False

        _until(answers)
        assert server.pid != killed


def test_a_stale_pid_file_of_a_living_stranger_does_not_hinder(home):
    with EmbeddedPostgres(home / "pg", LOOSE):
        pid_file = (home / "pg" / "postmaster.pid").read_text().splitlines()
    pid_file[0] = str(os.getppid())
    (home / "pg" / "postmaster.pid").write_text("\n".join(pid_file) + "\n")
    with EmbeddedPostgres(home / "pg", LOOSE) as server:
        assert _query(server.dsn(), "select 1") == [(1,)]


def test_two_owners_of_one_directory(home, owner):
    process, pid, _ = owner()
    with pytest.raises(DirectoryInUse) as caught:
        EmbeddedPostgres(home / "pg", LOOSE).start()
    assert f"process {process.pid}" in str(caught.value)
    assert f"pid {pid}" in str(caught.value)


def test_one_process_cannot_start_twice_on_one_directory(home):
    with EmbeddedPostgres(home / "pg", LOOSE) as server:
        with pytest.raises(DirectoryInUse, match="this process already"):
            EmbeddedPostgres(home / "pg", LOOSE).start()
        with pytest.raises(DirectoryInUse, match="this process already"):
            server.start()
        assert _query(server.dsn(), "select 1") == [(1,)]


def test_an_interrupted_initdb_is_started_over(home):
    (home / "pg.new-1").mkdir()
    (home / "pg.new-1" / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(home / "pg", LOOSE) as server:
        assert _query(server.dsn(), "select 1") == [(1,)]
    assert list(home.glob("pg.new-*")) == []


@as_root
def test_an_ordinary_user_runs_it_too(home, owner):
    python = shutil.which("python3", path="/usr/local/bin:/usr/bin")
    if python is None or not _nobody_may_run(find_programs().folder / "postgres"):
        pytest.skip("the programs are out of an ordinary user's reach")
    (home / "mine").mkdir()
    os.chown(home / "mine", 65534, 65534)
    _, pid, dsn = owner(home / "mine" / "pg", ("65534", python))
    assert (home / "mine" / "pg").stat().st_uid == 65534
    assert Path(f"/proc/{pid}").stat().st_uid == 65534
    assert _query(dsn, "select 1") == [(1,)]


def _nobody_may_run(program):
    return subprocess.run([program, "--version"], check=False, capture_output=True, user=65534).returncode == 0


@as_root
def test_root_without_user_namespaces_becomes_another_user(home, owner):
    """Run where no further user namespace may be made, in a directory that only root may enter."""
    home.chmod(0o700)
    _, _, dsn = owner(prefix=("-c", WITHOUT_NAMESPACES))
    assert (home / "pg").stat().st_uid != 0
    assert _query(dsn, "select 1") == [(1,)]


@as_root
def test_root_keeps_the_user_of_an_existing_directory(home):
    with EmbeddedPostgres(home / "pg", LOOSE):
        pass
    home.chmod(0o700)
    for path in (home / "pg", *(home / "pg").rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    with EmbeddedPostgres(home / "pg", LOOSE) as server:
        assert Path(f"/proc/{server.pid}").stat().st_uid == 65534
        assert _query(server.dsn(), "select 1") == [(1,)]


@as_root
def test_a_full_disk_is_called_so(home):
    """Give the directory a disk of 24 MB, in a mount namespace of its own."""
    script = textwrap.dedent(f"""
        mount -t tmpfs -o size=24m none {home} || exit 77
        exec {sys.executable} -c "$0" {home}/pg
    """)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, OWNER], capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode == 77:
        pytest.skip("no mounts here")
    assert done.stdout.startswith("DiskFull"), done.stdout + done.stderr
    assert "free some" in done.stdout


def test_another_version_is_called_so(home):
    with EmbeddedPostgres(home / "pg", LOOSE):
        pass
    (home / "pg" / "PG_VERSION").write_text("17\n")
    with pytest.raises(VersionMismatch, match="made by PostgreSQL 17"):
        EmbeddedPostgres(home / "pg", LOOSE).start()
    assert processes_in(home / "pg") == []


def test_a_socket_path_that_is_too_long_is_called_so(home):
    options = PostgresOptions(socket_dir=home / ("x" * 100))
    with pytest.raises(SocketPathTooLong, match="shorter socket directory"):
        EmbeddedPostgres(home / "pg", options).start()


def test_a_failed_start_tells_why_and_leaves_nothing(home):
    server = EmbeddedPostgres(home / "pg", PostgresOptions(durable=False, parameters={"shared_buffers": "nonsense"}))
    with pytest.raises(StartFailed, match="shared_buffers"):
        server.start()
    assert processes_in(home / "pg") == []
    with EmbeddedPostgres(home / "pg", LOOSE) as server:
        assert server.pid is not None


def test_a_stranger_s_socket_directory_is_refused(home):
    if os.getuid() != 0:
        pytest.skip("needs root to make a stranger's directory")
    (home / "socket").mkdir()
    os.chown(home / "socket", 65534, 65534)
    with pytest.raises(EmbeddedPostgresError, match="belongs to user 65534"):
        EmbeddedPostgres(home / "pg", PostgresOptions(socket_dir=home / "socket")).start()
