"""Machines that are pods of a Kubernetes cluster: claimed from a warm pool of agent-sandbox, its sandboxes, or bare."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from letta_sandbox.calls import Isolation
from letta_sandbox.remote import kubernetes_objects as objects
from letta_sandbox.remote import sdks
from letta_sandbox.remote.kubernetes_objects import CLAIM, CONTAINER, POD, POD_NAME, SANDBOX, Kind, NeverReady
from letta_sandbox.remote.machines import (
    ANSWER_SECONDS,
    ROLE,
    TOOL_CALL,
    Job,
    MachineFailed,
    MachineLost,
    MachineOutOfMemory,
    MachinesBusy,
    Output,
    Shape,
    StandingMachine,
)

_PIECE = 32 << 10
_STDIN, _STDOUT, _STDERR, _STATUS = range(4)
_HEARTBEAT = 20.0
_GONE = 404
_FORBIDDEN = 403
_BUSY = {429, 503}
_HTTPS = 443
_POLLS = (0.05, 0.1, 0.2, 0.4)
_MEMORY_POLLS = 5


@dataclass(frozen=True, slots=True)
class KubernetesOptions:
    """Which pods of which cluster; without a file of credentials, of the one this process runs in.

    With a warm pool its template says what pods are, and the image counts for nothing.
    """

    namespace: str = "default"
    image: str = "python:3.11-slim"
    runtime_class: str = ""
    warm_pool: str = ""
    resource: Literal["sandbox", "pod"] = "sandbox"
    config_file: str = ""
    start_seconds: float = 60.0


class KubernetesMachines:
    """Pods of one namespace. Raises RuntimeError where the SDK is not installed."""

    name = "kubernetes"

    def __init__(self, options: KubernetesOptions) -> None:
        self._sdk, self._config, self._stream, self._http = (
            sdks.load(module, "kubernetes")
            for module in (
                "kubernetes.aio.client",
                "kubernetes.aio.config",
                "kubernetes.aio.stream.ws_client",
                "aiohttp",
            )
        )
        self.options = options
        self._kind = POD if options.resource == "pod" else SANDBOX
        if options.warm_pool:
            self._kind = CLAIM
        self._clients: _Clients | None = None
        self._lock = asyncio.Lock()
        self.isolation = Isolation.VM if options.runtime_class.startswith("kata") else Isolation.NAMESPACE

    async def closed_to(self) -> Sequence[tuple[str, int]]:
        """Return the address of the API server: a pod that reaches it has a way out. Raises MachineFailed."""
        address = urlsplit((await self.clients()).host)
        return ((address.hostname or "", address.port or _HTTPS),)

    async def start(self, shape: Shape) -> KubernetesMachine:
        """Have a pod that runs and is as closed as it must be. Raises MachineFailed, MachinesBusy."""
        name = f"letta-call-{secrets.token_hex(8)}"
        if self._kind is CLAIM:
            spec: Mapping[str, Any] = {"warmPoolRef": {"name": self.options.warm_pool}}
        else:
            spec = objects.pod_spec(shape, self.options.image, self.options.runtime_class)
        clients = await self.clients()
        with self.failing():
            await clients.create(self._kind, objects.manifest(self._kind, name, spec, shape))
        machine = KubernetesMachine(self, name)
        try:
            with self.failing():
                async with asyncio.timeout(self.options.start_seconds):
                    pod = await self._running(clients, name)
        except MachineFailed:
            await machine.end()
            raise
        why = objects.weakness(pod, self.options.runtime_class)
        if why:
            await machine.end()
            raise MachineFailed(f"a pod of {self._kind.name} {name} must not run calls: {why}")
        machine.pod = pod["metadata"]["name"]
        return machine

    async def standing(self) -> list[StandingMachine]:
        """Return the objects that are there, whoever made them. Raises MachineFailed."""
        clients = await self.clients()
        with self.failing():
            found = await clients.list(self._kind, f"{ROLE}={TOOL_CALL}")
        metas = [item["metadata"] for item in found]
        return [StandingMachine(KubernetesMachine(self, meta["name"]), meta.get("labels") or {}) for meta in metas]

    async def delete(self, name: str) -> None:
        """Delete an object, and its pod with it. Raises MachineFailed."""
        clients = await self.clients()
        with contextlib.suppress(_NotThere), self.failing():
            await clients.delete(self._kind, name)

    async def close(self) -> None:
        """Let go of the connections."""
        if self._clients is not None:
            await self._clients.close()
            self._clients = None

    async def clients(self) -> _Clients:
        """Return the connections to the cluster. Raises MachineFailed."""
        async with self._lock:
            if self._clients is None:
                with self.failing():
                    self._clients = _Clients(
                        self._sdk, self._stream, await self._configuration(), self.options.namespace
                    )
            return self._clients

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """Turn what the SDK and the connection raise into MachineFailed."""
        try:
            yield
        except self._sdk.exceptions.ApiException as error:
            if error.status == _GONE:
                raise _NotThere(_sentence(error)) from error
            full = error.status == _FORBIDDEN and "exceeded quota" in str(error.body)
            raise (MachinesBusy if full or error.status in _BUSY else MachineFailed)(_sentence(error)) from error
        except TimeoutError as error:
            raise MachineFailed("no answer in time") from error
        except (NeverReady, self._config.ConfigException, self._http.ClientError, OSError) as error:
            raise MachineFailed(f"{type(error).__name__}: {error}"[:500]) from error

    async def _configuration(self) -> Any:
        made = self._sdk.Configuration()
        made.connection_pool_maxsize = 0  # the pool of machines is the limit
        if self.options.config_file:
            await self._config.load_kube_config(config_file=self.options.config_file, client_configuration=made)
        else:
            self._config.load_incluster_config(client_configuration=made)
        return made

    async def _running(self, clients: _Clients, name: str) -> dict[str, Any]:
        """Wait for the pod. Raises NeverReady."""
        pod_name = name
        if self._kind is CLAIM:
            claim = await _polled(lambda: clients.found(CLAIM, name, objects.is_ready))
            name = claim["status"]["sandbox"]["name"]
            sandbox = await clients.read(SANDBOX, name)
            pod_name = sandbox["metadata"].get("annotations", {}).get(POD_NAME) or name

        async def look() -> dict[str, Any] | None:
            if self._kind is not POD:
                objects.is_ready(await clients.read(SANDBOX, name))  # it may say that it never will be
            with contextlib.suppress(_NotThere), self.failing():
                return await clients.found(POD, pod_name, objects.is_running)
            return None

        return await _polled(look)


class KubernetesMachine:
    """One object and its pod. The object is what ends both."""

    def __init__(self, machines: KubernetesMachines, name: str) -> None:
        self.pod = ""
        self._machines = machines
        self._name = name

    async def run(self, job: Job) -> bytes:
        """Run a job in the pod. Raises MachineFailed, MachineLost, MachineOutOfMemory, TooMuchOutput."""
        clients = await self._machines.clients()
        with self._machines.failing():
            async with asyncio.timeout(ANSWER_SECONDS):
                socket = await clients.exec(self.pod, job.command)
        try:
            with sdks.handed_over(), self._machines.failing():
                async with socket, asyncio.timeout(job.patience):
                    return await _exchange(socket, job)
        except MachineLost:
            if await self._ran_out_of_memory(clients):
                raise MachineOutOfMemory from None
            raise

    async def end(self) -> None:
        """Delete the object. Raises MachineFailed."""
        await self._machines.delete(self._name)

    async def _ran_out_of_memory(self, clients: _Clients) -> bool:
        """Look what the kubelet says; its word comes a little later than the end of the connection."""
        for _ in range(_MEMORY_POLLS):
            try:
                with self._machines.failing():
                    pod = await clients.read(POD, self.pod)
            except MachineFailed:
                return False
            if objects.ran_out_of_memory(pod):
                return True
            if pod.get("status", {}).get("phase") != "Running":
                return False
            await asyncio.sleep(_POLLS[-1])
        return False


class _NotThere(MachineFailed):
    """The object does not exist."""


class _Clients:
    """The API of one namespace: objects as plain dictionaries, and commands in pods."""

    def __init__(self, sdk: Any, stream: Any, configuration: Any, namespace: str) -> None:
        self.host = str(configuration.host)
        self._sdk = sdk
        self._rest = sdk.ApiClient(configuration)
        self._sockets = stream.WsApiClient(configuration, heartbeat=_HEARTBEAT)
        self._namespace = namespace

    async def create(self, kind: Kind, body: Mapping[str, Any]) -> None:
        await self._call("POST", self._path(kind), body=dict(body))

    async def read(self, kind: Kind, name: str) -> dict[str, Any]:
        found: dict[str, Any] = await self._call("GET", f"{self._path(kind)}/{name}")
        return found

    async def list(self, kind: Kind, selector: str) -> list[dict[str, Any]]:
        found = await self._call("GET", self._path(kind), query=[("labelSelector", selector)])
        return list(found["items"])

    async def delete(self, kind: Kind, name: str) -> None:
        options = {"gracePeriodSeconds": 0, "propagationPolicy": "Background"}
        await self._call("DELETE", f"{self._path(kind)}/{name}", body=options)

    async def found(
        self, kind: Kind, name: str, is_there: Callable[[Mapping[str, Any]], bool]
    ) -> dict[str, Any] | None:
        """Return the object if it is as asked for."""
        read = await self.read(kind, name)
        return read if is_there(read) else None

    async def exec(self, pod: str, command: Sequence[str]) -> Any:
        """Start a command in a pod; return the socket of its streams."""
        connecting = await self._sdk.CoreV1Api(self._sockets).connect_get_namespaced_pod_exec_without_preload_content(
            pod,
            self._namespace,
            command=list(command),
            container=CONTAINER,
            stdin=True,
            stdout=True,
            stderr=True,
            tty=False,
        )
        return await connecting

    async def close(self) -> None:
        await self._rest.close()
        await self._sockets.close()

    def _path(self, kind: Kind) -> str:
        place = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
        return f"{place}/namespaces/{self._namespace}/{kind.plural}"

    async def _call(self, method: str, path: str, *, query: Any = None, body: Any = None) -> Any:
        """Call the API without the SDK's models, which drop and reject what they do not know."""
        asked = await self._rest.param_serialize(
            method=method,
            resource_path=path,
            query_params=query or [],
            header_params={"Accept": "application/json", "Content-Type": "application/json"},
            body=body,
            auth_settings=["BearerToken"],
        )
        answer = await self._rest.call_api(*asked, _request_timeout=ANSWER_SECONDS)
        data = await answer.read()
        if not 200 <= answer.status <= 299:
            raise self._sdk.exceptions.ApiException(http_resp=answer, body=data.decode(errors="replace"))
        return json.loads(data)


async def _polled(look: Callable[[], Awaitable[dict[str, Any] | None]]) -> dict[str, Any]:
    """Look again and again, less and less often, until there is something."""
    tries = 0
    while (found := await look()) is None:
        await asyncio.sleep(_POLLS[min(tries, len(_POLLS) - 1)])
        tries += 1
    return found


async def _exchange(socket: Any, job: Job) -> bytes:
    """Hand over the job, return what it writes. Raises MachineLost, TooMuchOutput."""
    sending = asyncio.create_task(_send(socket, job.data))
    output = Output(job.most_bytes)
    ended = False
    try:
        async for message in socket:
            if not isinstance(message.data, bytes) or not message.data:
                raise MachineLost(f"the connection broke: {message.data}")
            channel, data = message.data[0], message.data[1:]
            if channel == _STDOUT:
                output.add(data)
            elif channel == _STDERR:
                output.count(len(data))
            elif channel == _STATUS:
                ended = True
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    if not ended or not output.written():
        raise MachineLost("the connection ended before the job" if not ended else "it wrote nothing")
    return output.written()


async def _send(socket: Any, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):  # it has ended already
        for begin in range(0, len(data), _PIECE):
            await socket.send_bytes(bytes([_STDIN]) + data[begin : begin + _PIECE])


def _sentence(error: Any) -> str:
    try:
        said = json.loads(error.body)["message"]
    except (KeyError, TypeError, ValueError):
        said = error.reason or ""
    return f"{error.status}: {said}"[:500]
