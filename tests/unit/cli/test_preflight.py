"""What is looked at before a database is started."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from pydantic import SecretStr

from letta_cli.servers.preflight import check, check_home, check_port
from letta_common.process.settings import Settings
from letta_embedded_postgres import PostgresNotFound
from tests.servers import free_port


def test_a_home_is_made(tmp_path: Path):
    check_home(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("below", [(), ("deeper",)], ids=["itself", "above"])
def test_a_file_is_no_home(tmp_path: Path, below: tuple[str, ...]):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"is a file or lies in one.*LETTA_HOME"):
        check_home((tmp_path / "file").joinpath(*below))


def test_a_home_that_cannot_be_written_to_is_said():
    with pytest.raises(OSError, match=r"cannot write to /proc/letta.*LETTA_HOME"):
        check_home(Path("/proc/letta"))


def test_a_taken_port_is_said_with_the_option_for_another():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=rf"{bind}: another program listens there.*--port"):
            check_port(bind, "--port")


def test_an_address_of_another_machine_is_said():
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1:"):
        check_port(f"192.0.2.1:{free_port()}", "--port")


def test_one_port_for_two_is_said(tmp_path: Path):
    bind = f"127.0.0.1:{free_port()}"
    with pytest.raises(OSError, match="twice: --grpc-port and --port"):
        check(Settings(home=tmp_path), {"--grpc-port": bind, "--port": bind})


def test_an_option_that_libpq_does_not_know_is_said_without_the_password(tmp_path: Path):
    settings = Settings(home=tmp_path, database_url="postgresql://u:hidden@h/d?nonsense=1")  # type: ignore[arg-type]
    with pytest.raises(OSError, match="LETTA_DATABASE_URL") as caught:
        check(settings, {})
    assert "hidden" not in str(caught.value)


def test_a_folder_without_postgres_is_said_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LETTA_POSTGRES_BIN", str(tmp_path))

    with pytest.raises(PostgresNotFound, match=f"{tmp_path} of LETTA_POSTGRES_BIN has no program initdb"):
        check(Settings(home=tmp_path), {})


def test_a_folder_without_postgres_does_not_matter_to_a_server_elsewhere(tmp_path: Path):
    check(Settings(home=tmp_path, postgres_bin=tmp_path, database_url=SecretStr("postgresql://u@h/d")), {})
