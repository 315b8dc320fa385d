"""Vendors of machines behind one interface for tests: real SDKs that talk to local servers, which fail on demand."""

import asyncio
import contextlib
import gc
import importlib.util
import json
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from letta_sandbox.remote.docker_engine import DockerMachines, DockerOptions
from letta_sandbox.remote.e2b_cloud import E2BMachines, E2BOptions
from letta_sandbox.remote.kubernetes_cluster import KubernetesMachines, KubernetesOptions
from letta_sandbox.remote.machines import Machines
from letta_sandbox.remote.modal_cloud import ModalMachines, ModalOptions
from tests.fakes.docker_engine import start_engine
from tests.fakes.e2b_cloud import FakeCloud

E2B_KEY = f"e2b_{'0' * 40}"


class Vendor:
    """One vendor and its local server, `fake`."""

    name = ""
    sdk = ""
    secrets: tuple[str, ...] = ()
    busy: Any = 429
    broken: Any = 500

    def __init__(self, directory: Path) -> None:
        if importlib.util.find_spec(self.sdk) is None:
            pytest.skip(f"the extra {self.name} is not installed")
        self.directory = directory
        self.fake: Any = self.start()

    @property
    def running(self) -> threading.Event:
        """Is set when a command begins."""
        return self.fake.running

    def start(self) -> Any:
        raise NotImplementedError

    def machines(self) -> Machines:
        """Return a new connection."""
        raise NotImplementedError

    def unreachable(self) -> Machines:
        """Return a connection to an address where nobody listens."""
        raise NotImplementedError

    def rejected(self) -> Machines:
        """Return a connection whose credentials are wrong."""
        raise NotImplementedError

    def left(self) -> dict[str, Mapping[str, str]]:
        """Return the machines that exist, and their labels."""
        raise NotImplementedError

    def lose(self) -> None:
        """Let every machine die without a word."""
        for name in self.left():
            self.fake.end(name)

    def close(self) -> None:
        self.fake.close()


class DockerVendor(Vendor):
    name = "docker"
    sdk = "docker"

    def start(self) -> Any:
        return start_engine(self.directory)

    def machines(self) -> Machines:
        return DockerMachines(DockerOptions(address=f"unix://{self.fake.server_address}"))

    def unreachable(self) -> Machines:
        return DockerMachines(DockerOptions(address="tcp://127.0.0.1:1"))

    def rejected(self) -> Machines:
        pytest.skip("the engine's socket knows no credentials")

    def left(self) -> dict[str, Mapping[str, str]]:
        return {name: item["wanted"]["Labels"] for name, item in list(self.fake.containers.items())}


class E2BVendor(Vendor):
    name = "e2b"
    sdk = "e2b"
    secrets = (E2B_KEY,)

    def start(self) -> Any:
        return FakeCloud(E2B_KEY)

    def machines(self) -> Machines:
        return self._machines(E2B_KEY, self.fake.address)

    def unreachable(self) -> Machines:
        return self._machines(E2B_KEY, "http://127.0.0.1:1")

    def rejected(self) -> Machines:
        return self._machines(f"e2b_{'1' * 40}", self.fake.address)

    def left(self) -> dict[str, Mapping[str, str]]:
        return {name: item["metadata"] for name, item in list(self.fake.sandboxes.items())}

    def _machines(self, key: str, address: str) -> Machines:
        return E2BMachines(E2BOptions(key, api_url=address, sandbox_url=address))


class KubernetesVendor(Vendor):
    name = "kubernetes"
    sdk = "kubernetes"

    def start(self) -> Any:
        fakes = importlib.import_module("tests.fakes.kubernetes_api")
        self.secrets = (fakes.TOKEN,)
        return fakes.FakeCluster()

    def machines(self, **options: Any) -> Machines:
        config = options.pop("config_file", None) or self.fake.config_file(self.directory)
        return KubernetesMachines(KubernetesOptions(namespace="letta", config_file=config, **options))

    def unreachable(self) -> Machines:
        path = Path(self.fake.config_file(self.directory))
        away = self.directory / "away"
        away.write_text(path.read_text().replace(str(self.fake.port), "1"))
        return self.machines(config_file=str(away))

    def rejected(self) -> Machines:
        return self.machines(config_file=self.fake.config_file(self.directory, token="wrong"))

    def left(self) -> dict[str, Mapping[str, str]]:
        there = self.fake.objects["sandboxes"] | self.fake.objects["sandboxclaims"] | self.fake.objects["pods"]
        return {name: item["metadata"].get("labels", {}) for name, item in there.items()}

    def lose(self) -> None:
        self.fake.lose()


class ModalVendor(Vendor):
    name = "modal"
    sdk = "modal"

    def start(self) -> Any:
        grpc = importlib.import_module("grpc")
        self.busy, self.broken = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.FAILED_PRECONDITION
        fakes = importlib.import_module("tests.fakes.modal_api")
        self.secrets = fakes.TOKEN
        self._environment = pytest.MonkeyPatch()
        fake = fakes.FakeModal()
        self._environment.setenv("MODAL_SERVER_URL", fake.address)
        return fake

    def machines(self) -> Machines:
        self._environment.setenv("MODAL_SERVER_URL", self.fake.address)
        return ModalMachines(ModalOptions(*self.secrets))

    def unreachable(self) -> Machines:
        self._environment.setenv("MODAL_SERVER_URL", "http://127.0.0.1:1")
        return ModalMachines(ModalOptions(*self.secrets, connect_seconds=0.5))

    def rejected(self) -> Machines:
        self._environment.setenv("MODAL_SERVER_URL", self.fake.address)
        return ModalMachines(ModalOptions(self.secrets[0], "as-wrong"))

    def left(self) -> dict[str, Mapping[str, str]]:
        return {name: item["tags"] for name, item in list(self.fake.sandboxes.items())}

    def close(self) -> None:
        self._environment.undo()
        super().close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # the SDK leaves channels to the collector
            gc.collect()  # now, lest it strikes another test, perhaps in the depth of a recursion


VENDORS = {kind.name: kind for kind in (DockerVendor, E2BVendor, KubernetesVendor, ModalVendor)}


def asked_for(vendor: Vendor) -> str:
    """Return everything that the vendor was asked to create, as text."""
    with contextlib.suppress(TypeError):
        return json.dumps(vendor.fake.created)
    return "".join(map(str, vendor.fake.created))


async def settled(count, wanted):
    """Wait until something counts as it should; the test's own limit ends it."""
    async with asyncio.timeout(20):
        while count() != wanted:  # noqa: ASYNC110 - another thread changes it
            await asyncio.sleep(0.02)
