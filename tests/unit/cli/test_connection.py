"""How a server is named and reached: plain, or with TLS."""

from __future__ import annotations

import contextlib
import datetime
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from letta_cli.connection import ServerAddress, connected
from letta_common.errors import InvalidArgument, ServiceUnavailable


@dataclass(frozen=True, slots=True)
class Files:
    certificate: Path
    key: Path


def made(place: Path) -> Files:
    """Make a certificate for 127.0.0.1 that is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "letta.test")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
    certificate = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True).sign(
        key, hashes.SHA256()
    )
    files = Files(place / "certificate.pem", place / "key.pem")
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    files.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return made(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server() -> Iterator[grpc.Server]:
    served = grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), served)
    yield served
    served.stop(None)


@pytest.fixture(scope="module")
def ports(server: grpc.Server, files: Files) -> dict[str, int]:
    pair = [(files.key.read_bytes(), files.certificate.read_bytes())]
    strict = grpc.ssl_server_credentials(pair, files.certificate.read_bytes(), require_client_auth=True)
    found = {
        "plain": server.add_insecure_port("127.0.0.1:0"),
        "tls": server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair)),
        "both": server.add_secure_port("127.0.0.1:0", strict),
    }
    server.start()
    return found


def ask(target: ServerAddress) -> int:
    with connected(target) as channel:
        return int(health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20).status)


@pytest.mark.parametrize("scheme", ["", "grpc://", "http://"])
def test_a_plain_server_is_reached(ports: dict[str, int], scheme: str):
    assert ask(ServerAddress(f"{scheme}127.0.0.1:{ports['plain']}")) == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("scheme", ["", "grpcs://", "https://"])
def test_a_server_with_tls_is_reached_by_its_authority(ports: dict[str, int], files: Files, scheme: str):
    target = ServerAddress(f"{scheme}127.0.0.1:{ports['tls']}", files.certificate)
    assert ask(target) == health_pb2.HealthCheckResponse.SERVING


def test_a_server_that_wants_a_certificate_gets_it(ports: dict[str, int], files: Files):
    target = ServerAddress(f"https://127.0.0.1:{ports['both']}", files.certificate, files.certificate, files.key)
    assert ask(target) == health_pb2.HealthCheckResponse.SERVING


def test_an_unknown_authority_is_told_from_a_server_that_is_not_there(ports: dict[str, int], tmp_path: Path):
    other = made(tmp_path)
    for target in (
        ServerAddress(f"https://127.0.0.1:{ports['tls']}"),
        ServerAddress(f"https://127.0.0.1:{ports['tls']}", other.certificate),
    ):
        with pytest.raises(ServiceUnavailable, match="--tls-ca"):
            ask(target)
    with pytest.raises(ServiceUnavailable, match="--tls-ca"):
        ask(ServerAddress(f"https://127.0.0.1:{ports['plain']}"))
    with pytest.raises(ServiceUnavailable, match="https://127"):
        ask(ServerAddress(f"127.0.0.1:{ports['tls']}"))
    with pytest.raises(ServiceUnavailable, match="letta server"):
        ask(ServerAddress("127.0.0.1:1"))


@pytest.fixture
def slammed() -> Iterator[tuple[str, list[int]]]:
    """An address that ends every connection at once, and the connections it had."""
    had: list[int] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def slam() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, (_, port) = listening.accept()
                had.append(port)
                connection.close()

    thread = threading.Thread(target=slam)
    thread.start()
    yield f"127.0.0.1:{listening.getsockname()[1]}", had
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


def test_a_server_that_does_not_answer_is_tried_once(slammed: tuple[str, list[int]]):
    address, had = slammed
    with pytest.raises(ServiceUnavailable):
        ask(ServerAddress(address))
    assert len(had) == 1


@pytest.mark.parametrize("address", ["", "a b", "http://", "host:port", "ftp://host:1", "https://host/path"])
def test_what_is_no_address_is_refused(address: str):
    with pytest.raises(InvalidArgument, match="is no address"):
        ServerAddress(address).open()
