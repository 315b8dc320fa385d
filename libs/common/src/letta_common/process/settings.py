"""Settings every service shares: arguments > LETTA_* environment > config.json > defaults."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from letta_common.process.home import home_directory

SERVICES = ("agent", "memory", "tools", "llm_gateway", "auth", "gateway")
PEERS: dict[str, int] = {"agent": 50051, "memory": 50052, "tools": 50053, "llm_gateway": 50054, "auth": 50055}


_ADDRESS = re.compile(r"[\w+]+://(?:[^/?#@\s]*@)?(?P<hosts>[^/?#@\s]*)(?:/(?P<name>[^?#\s]*))?(?:\?[^#\s]*)?")


class Settings(BaseSettings):
    """Settings of any service. `LETTA_<SERVICE>_X` is for one service and wins over `LETTA_X`."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True, populate_by_name=True)
    service: ClassVar[str] = ""

    home: Path = Field(default_factory=home_directory, description="Directory of everything kept on this machine.")
    bind: str = Field(default="127.0.0.1:50051", description="Address and port of the gRPC server.")
    database_url: SecretStr = Field(default=SecretStr(""), description="Postgres to use instead of the embedded one.")
    postgres_bin: Path | None = Field(
        default=None,
        description="Folder with `initdb` and `postgres` (16 or newer, with pgvector) to run the embedded one from; "
        "default: the wheel's, else installed ones.",
    )
    dev_mode: bool = Field(default=False, description="Callers without credential are the default user; loopback only.")
    audience: str = Field(default="letta", description="Name of the deployment that signed actors are valid in.")
    cluster_secret: SecretStr = Field(
        default=SecretStr(""), description="Proves a service to another; made when absent."
    )
    encryption_key: SecretStr = Field(
        default=SecretStr(""), description="Seals secrets at rest; empty: one made once, in LETTA_HOME/encryption_key."
    )
    encryption_keys_also: tuple[SecretStr, ...] = Field(
        default=(), description="Former and coming encryption keys: they open, and what they sealed is sealed anew."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least severe line.")
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="Layout of log lines; auto: console on a terminal, else json."
    )
    unknown_settings: Literal["warn", "ignore"] = Field(
        default="warn", description="What a start does about names in `LETTA_*` and config.json that are no settings."
    )
    tls_certificate: Path | None = Field(default=None, description="PEM file of this service's certificate chain.")
    tls_key: Path | None = Field(default=None, description="PEM file of the certificate's private key.")
    tls_ca: Path | None = Field(default=None, description="PEM file of the authority that signs all services.")
    max_message_bytes: int = Field(default=16 << 20, description="Largest message accepted and sent.")
    max_calls: int = Field(
        default=2000, ge=0, description="Calls and streams served at once; more are refused. 0: any number."
    )
    max_calls_of_organization: int = Field(
        default=500, ge=0, description="Calls and streams of one organization served at once. 0: any number."
    )
    max_connections: int = Field(default=2000, gt=0, description="Connections to a server at once; more are closed.")
    handshake_seconds: float = Field(default=10.0, gt=0, description="How long TLS and HTTP/2 may take to begin.")
    drain_seconds: float = Field(default=10.0, description="How long calls in flight may take to end after SIGTERM.")
    health_seconds: float = Field(
        default=2.0, gt=0, description="How often a service asks its database for a sign of life, for its health."
    )
    share_ports: bool = Field(
        default=False, description="Let other processes listen on the same ports, as those of `--workers` do."
    )
    metrics_bind: str = Field(default="", description="Address and port for Prometheus; empty: none.")
    channelz_bind: str = Field(
        default="", description="Address and port for gRPC channelz, which anyone who reaches it can read; empty: none."
    )
    agent_address: str = Field(default="127.0.0.1:50051", description="gRPC target of the agent service.")
    memory_address: str = Field(default="127.0.0.1:50052", description="gRPC target of the memory service.")
    tools_address: str = Field(default="127.0.0.1:50053", description="gRPC target of the tools service.")
    llm_gateway_address: str = Field(default="127.0.0.1:50054", description="gRPC target of the llm_gateway service.")
    auth_address: str = Field(default="127.0.0.1:50055", description="gRPC target of the auth service.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources; the first that has a value wins."""
        own = [EnvSettingsSource(settings_cls, env_prefix=f"LETTA_{cls.service.upper()}_")] if cls.service else []
        common = EnvSettingsSource(settings_cls, env_prefix="LETTA_")
        alias = {"database_url": url} if (url := os.environ.get("LETTA_PG_URI")) else {}
        sources = (alias, _config(cls.service))
        return (init_settings, *own, common, *(InitSettingsSource(settings_cls, dict(values)) for values in sources))

    @field_validator("database_url")
    @classmethod
    def _is_an_address_of_postgres(cls, value: SecretStr) -> SecretStr:
        fault = database_url_fault(value.get_secret_value().strip())
        if fault:
            raise ValueError(f"{fault}; expected postgresql://user:password@host:5432/database")
        return value

    @model_validator(mode="after")
    def _dev_mode_stays_home(self) -> Self:
        if self.dev_mode and not is_loopback(self.bind):
            raise ValueError("dev_mode serves loopback only: bind to 127.0.0.1 or configure credentials")
        return self

    def address_of(self, peer: str) -> str:
        """Return the gRPC target of a peer service."""
        return str(getattr(self, f"{peer}_address"))

    def secret(self) -> bytes:
        """Return the cluster secret; without one configured, the one in LETTA_HOME, made at the first call."""
        configured = self.cluster_secret.get_secret_value()
        return configured.encode() if configured else kept_secret(self.home / "cluster_secret")

    def sealing_secrets(self) -> list[bytes]:
        """Return the secrets that open what is sealed at rest; the first one seals."""
        given = self.encryption_key.get_secret_value().encode() or kept_secret(self.home / "encryption_key")
        return [given, *(each.get_secret_value().encode() for each in self.encryption_keys_also)]


def is_loopback(bind: str) -> bool:
    """Say whether an address and port, or a unix socket, can be reached from this machine only."""
    host = bind.rpartition(":")[0].strip("[]")
    if bind.startswith("unix:") or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def database_url_fault(url: str) -> str:
    """Say why this is no address of Postgres, without a word of what it holds; empty when it is one."""
    if not url or re.match(r"\w+\s*=", url):  # libpq takes `host=... dbname=...` as well
        return ""
    if not re.match(r"postgres(ql)?(\+\w+)?://", url):
        return "it does not begin with postgresql://"
    parts = _ADDRESS.fullmatch(url)
    if parts is None or "/" in (parts["name"] or ""):
        return "it cannot be read as an address; in a password, write @ : / # ? as %40 %3A %2F %23 %3F"
    for host in parts["hosts"].split(","):
        port = re.fullmatch(r"(?:\[[^\]]*\]|[^:\[\]]*)(?::(\d*))?", host)
        if port is None or not 0 < int(port[1] or 5432) < 65536:
            return "its port is not a number from 1 to 65535"
    return ""


def explained(error: ValidationError | SettingsError) -> str:
    """Say in one sentence which settings cannot be taken, without their values."""
    if isinstance(error, SettingsError):
        return str(error)
    return "; ".join(_why(fault["loc"], fault["msg"]) for fault in error.errors())


def _why(place: Sequence[int | str], message: str) -> str:
    text = message.removeprefix("Value error, ")
    return f"{'.'.join(map(str, place))}: {text}" if place else text


def kept_secret(path: Path) -> bytes:
    """Return the secret kept in a file that only its owner reads; make it when there is none."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(32))
    try:
        os.link(made, path)  # atomic: of several first processes one wins
    except FileExistsError:
        pass
    finally:
        made.unlink()
    return path.read_bytes().strip()


def _config(service: str) -> dict[str, Any]:
    values = configuration_file()
    own = values.get(service, {})
    if not isinstance(own, dict):
        raise SettingsError(f"`{service}` in {home_directory() / 'config.json'} is not an object of settings")
    return {**values, **own}


def configuration_file() -> dict[str, Any]:
    """Return what config.json in LETTA_HOME holds. Raises SettingsError when it cannot be read."""
    path = home_directory() / "config.json"
    try:
        values = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{path} is not an object of settings in JSON: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path} is not an object of settings in JSON")
    return values
