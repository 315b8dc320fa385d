"""Where settings come from, and what they never show."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field, ValidationError
from pydantic_settings import SettingsError

from letta_common.process.settings import Settings, explained, is_loopback, kept_secret


class ShopSettings(Settings):
    service: ClassVar[str] = "shop"
    shelves: int = Field(default=1, description="Number of shelves.")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("LETTA_PG_URI", "LETTA_DATABASE_URL", "LETTA_SHELVES", "LETTA_SHOP_SHELVES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LETTA_HOME", str(tmp_path))
    return tmp_path


def url(settings: Settings) -> str:
    return settings.database_url.get_secret_value()


def test_each_source_wins_over_the_next(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [ShopSettings().shelves]
    (home / "config.json").write_text(json.dumps({"shelves": 2}))
    seen.append(ShopSettings().shelves)
    (home / "config.json").write_text(json.dumps({"shelves": 2, "shop": {"shelves": 3}}))
    seen.append(ShopSettings().shelves)
    monkeypatch.setenv("LETTA_SHELVES", "4")
    seen.append(ShopSettings().shelves)
    monkeypatch.setenv("LETTA_SHOP_SHELVES", "5")
    seen.extend((ShopSettings().shelves, ShopSettings(shelves=6).shelves))

    assert seen == [1, 2, 3, 4, 5, 6]


def test_database_url_has_an_alias_and_one_for_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETTA_PG_URI", "postgresql://alias")
    seen = [url(ShopSettings())]
    monkeypatch.setenv("LETTA_DATABASE_URL", "postgresql://all")
    seen.append(url(ShopSettings()))
    monkeypatch.setenv("LETTA_SHOP_DATABASE_URL", "postgresql://shop")
    seen.append(url(ShopSettings()))

    assert seen == ["postgresql://alias", "postgresql://all", "postgresql://shop"]


def test_setting_of_another_service_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETTA_BAKERY_SHELVES", "9")

    assert ShopSettings().shelves == 1


def test_home_follows_the_environment(home: Path) -> None:
    assert ShopSettings().home == home


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETTA_DATABASE_URL", "postgresql://u:hidden-1@h/d")
    settings = ShopSettings(cluster_secret="hidden-2")  # type: ignore[arg-type]

    assert "hidden" not in repr(settings) + str(settings) + settings.model_dump_json()


def test_invalid_value_is_not_shown() -> None:
    with pytest.raises(ValidationError) as caught:
        ShopSettings(shelves="hidden")  # type: ignore[arg-type]

    assert "hidden" not in str(caught.value)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        ShopSettings().shelves = 2


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_dev_mode_is_for_loopback() -> None:
    assert ShopSettings(dev_mode=True, bind="127.0.0.1:1").dev_mode
    with pytest.raises(ValidationError):
        ShopSettings(dev_mode=True, bind="0.0.0.0:1")


@pytest.mark.parametrize(
    ("bind", "loopback"),
    [
        *((bind, True) for bind in ("127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/tmp/s")),
        *((bind, False) for bind in ("0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.org:1", ":1")),
    ],
)
def test_loopback_is_recognized(bind: str, loopback: bool) -> None:
    assert is_loopback(bind) is loopback


def test_cluster_secret_is_made_once_for_its_owner_alone(home: Path) -> None:
    made = ShopSettings().secret()

    assert made == ShopSettings().secret()
    assert len(made) >= 32
    assert stat.S_IMODE((home / "cluster_secret").stat().st_mode) == 0o600
    assert [path.name for path in home.iterdir()] == ["cluster_secret"]
    assert ShopSettings(cluster_secret="mine").secret() == b"mine"  # type: ignore[arg-type]


def test_first_processes_agree_on_the_secret(tmp_path: Path) -> None:
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(kept_secret(tmp_path / "s"))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 16
    assert len(set(found)) == 1


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "mysql://u:hidden@h/d",
        "postgres:/u:hidden@h/d",
        "postgresql:u:hidden@h/d",
        "postgresql://u:hidden@h:port/d",
        "postgresql://u:hidden@h:70000/d",
        "postgresql://u:hid/den@h/d",
        "postgresql://u:hid#hidden@h/d",
        "postgresql://u:hidden hidden@h/d",
        "postgresql://[::1/hidden",
        "http://u:hidden@h/d",
    ],
)
def test_what_is_no_address_of_postgres_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ShopSettings(database_url=url)  # type: ignore[arg-type]

    assert "postgresql://user:password@host" in explained(caught.value)
    assert "database_url" in explained(caught.value)
    assert "hid" not in explained(caught.value) + str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "postgres://h",
        "postgresql://u:p%40@h:5432/d?sslmode=require",
        "postgresql+asyncpg://u@h/d",
        "postgresql://letta@/letta?host=/tmp/socket&port=5432",
        "postgresql://h1:1,h2:2/d",
        "host=h dbname=d",
    ],
)
def test_what_libpq_reads_is_taken(address: str) -> None:
    assert url(ShopSettings(database_url=address)) == address  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["{bad", "[]", '"words"', '{"shop": 1}'])
def test_a_file_that_holds_no_settings_is_refused(home: Path, text: str) -> None:
    (home / "config.json").write_text(text)
    with pytest.raises(SettingsError, match=r"config\.json"):
        ShopSettings()
