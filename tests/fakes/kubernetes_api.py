"""The API server of Kubernetes with the controllers of agent-sandbox and a kubelet, as far as calls need them.

REST for pods, sandboxes and claims, and commands over the websocket channels v4 and v5. Pods are directories, their
commands processes; with a network policy they are in a network namespace of their own.
"""

import asyncio
import contextlib
import json
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aiohttp import WSMsgType, web

from tests.fakes.machine_rooms import Room

TOKEN = "the-token-of-the-service"
_SUBPROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_KINDS = {"pods": "v1", "sandboxes": "agents.x-k8s.io/v1beta1", "sandboxclaims": "extensions.agents.x-k8s.io/v1beta1"}
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_STDOUT, _STDERR, _STATUS, _CLOSE = 1, 2, 3, 255


class FakeCluster:
    """One namespace, `letta`. What was asked for is in `created`, what there is in `objects`.

    `faults` are statuses that the next requests to create are answered with. `rules` are those of a role; without them
    everything is allowed.
    """

    def __init__(self) -> None:
        self.created: list[dict] = []
        self.objects: dict[str, dict[str, dict]] = {plural: {} for plural in _KINDS}
        self.rooms: dict[str, Room] = {}
        self.faults: list[int] = []
        self.rules: list[dict] | None = None
        self.missing_images: set[str] = set()
        self.network_policy = True
        self.stuck = False
        self.oom = False
        self.garbage = b""
        self.warm_pools: dict[str, dict] = {}
        self.subprotocols: list[str] = []
        self.running = threading.Event()
        self.port = 0
        self._sockets: set[web.WebSocketResponse] = set()
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(128))
        self._runner: web.AppRunner | None = None
        listening = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(listening,), daemon=True)
        self._thread.start()
        listening.wait(20)

    def config_file(self, directory: Path, token: str = TOKEN) -> str:
        """Write a file of credentials; return its path."""
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "x",
            "clusters": [cluster],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        }
        path = directory / f"kubeconfig-{self.port}-{len(token)}"
        path.write_text(json.dumps(config))
        return str(path)

    def lose(self) -> None:
        """End every pod as when its node dies: connections break, nothing is said."""
        asyncio.run_coroutine_threadsafe(self._lose(), self._loop).result(20)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()

    def _serve(self, listening: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._begin())
        listening.set()
        self._loop.run_forever()

    async def _begin(self) -> None:
        app = web.Application(middlewares=[self._checked])
        place = r"/{root:api/v1|apis/[^/]+/[^/]+}/namespaces/letta/{plural}"
        app.router.add_get(place + "/{name}/exec", self._exec)
        app.router.add_get(place + "/{name}", self._read)
        app.router.add_get(place, self._list)
        app.router.add_post(place, self._create)
        app.router.add_delete(place + "/{name}", self._delete)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        await self._lose()
        await self._runner.cleanup()

    async def _lose(self) -> None:
        for socket in list(self._sockets):
            if socket._req.transport is not None:
                socket._req.transport.abort()
        for name in list(self.objects["pods"]):
            self._end_pod(name)
        for there in self.objects.values():
            there.clear()

    @web.middleware
    async def _checked(self, request: web.Request, handler) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _failure(401, "Unauthorized")
        if request.match_info.get("plural") not in _KINDS:
            return _failure(404, "the server could not find the requested resource")
        if not self._allowed(request):
            return _failure(403, f"{request.method} {request.path} is forbidden")
        return await handler(request)

    def _allowed(self, request: web.Request) -> bool:
        """Tell whether the role allows a request; commands are asked for by GET and need the right to create too."""
        if self.rules is None:
            return True
        plural = request.match_info["plural"]
        command = request.path.endswith("/exec")
        single = "get" if "name" in request.match_info else "list"
        verbs = (
            {"create", "get"} if command else {{"GET": single, "POST": "create", "DELETE": "delete"}[request.method]}
        )
        resource = f"{plural}/exec" if command else plural
        group = request.match_info["root"].split("/")[1] if request.match_info["root"].startswith("apis") else ""
        given = [
            set(rule["verbs"]) for rule in self.rules if group in rule["apiGroups"] and resource in rule["resources"]
        ]
        return verbs <= set().union(*given)

    async def _create(self, request: web.Request) -> web.Response:
        if self.faults:
            return _failure(self.faults.pop(0), "the cluster has a fault")
        wanted = await request.json()
        plural = request.match_info["plural"]
        labels = wanted["metadata"].get("labels", {})
        if wanted["apiVersion"] != _KINDS[plural]:
            return _failure(400, f"{plural} are not of {wanted['apiVersion']}")
        if not all(_LABEL.fullmatch(value) for value in labels.values()):
            return _failure(422, f"invalid labels: {labels}")
        self.created.append(wanted)
        self._put(plural, wanted)
        return web.json_response(wanted, status=201)

    def _put(self, plural: str, wanted: dict) -> None:
        """Store an object, and what controllers make of it."""
        name = wanted["metadata"]["name"]
        self.objects[plural][name] = wanted
        if plural == "pods":
            self._start_pod(wanted)
        elif plural == "sandboxes":
            template = wanted["spec"]["podTemplate"]
            pod = {"metadata": {"name": name, **template.get("metadata", {})}, "spec": template["spec"]}
            self._put("pods", pod)
            wanted["status"] = _ready(self.objects["pods"][name]["status"]["phase"] == "Running")
        else:
            self._bind(wanted)

    def _bind(self, claim: dict) -> None:
        """Give a claim a sandbox of its warm pool, whose pod has a name of its own."""
        template = self.warm_pools.get(claim["spec"]["warmPoolRef"]["name"])
        if template is None:
            message = {"type": "Ready", "status": "False", "reason": "WarmPoolNotFound", "message": "no such pool"}
            claim["status"] = {"conditions": [message]}
            return
        name = f"pool-{os.urandom(3).hex()}"
        self._put("pods", {"metadata": {"name": f"{name}-pod"}, "spec": template})
        annotations = {"agents.x-k8s.io/pod-name": f"{name}-pod"}
        self.objects["sandboxes"][name] = {
            "metadata": {"name": name, "annotations": annotations},
            "spec": {},
            "status": _ready(True),
        }
        claim["status"] = {**_ready(True), "sandbox": {"name": name}}

    def _start_pod(self, pod: dict) -> None:
        name, spec = pod["metadata"]["name"], pod["spec"]
        (container,) = spec["containers"]
        if container["image"] in self.missing_images or self.stuck:
            reason = "ContainerCreating" if self.stuck else "ErrImagePull"
            waiting = {"reason": reason, "message": f"image {container['image']}"}
            pod["status"] = {"phase": "Pending", "containerStatuses": [{"state": {"waiting": waiting}}]}
            return
        environment = {item["name"]: item["value"] for item in container.get("env", []) if item["name"] != "HOME"}
        environment |= {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.port)}
        room = self.rooms[name] = Room(environment, network=not self.network_policy)
        if spec.get("automountServiceAccountToken") is not False:
            (room.place / "token").write_text(TOKEN)
        pod["status"] = {"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}

    async def _read(self, request: web.Request) -> web.Response:
        found = self.objects[request.match_info["plural"]].get(request.match_info["name"])
        return web.json_response(found) if found else _failure(404, f"{request.match_info['name']} not found")

    async def _list(self, request: web.Request) -> web.Response:
        label, value = request.query["labelSelector"].split("=")
        there = self.objects[request.match_info["plural"]].values()
        return web.json_response(
            {"items": [item for item in there if item["metadata"].get("labels", {}).get(label) == value]}
        )

    async def _delete(self, request: web.Request) -> web.Response:
        plural, name = request.match_info["plural"], request.match_info["name"]
        found = self.objects[plural].pop(name, None)
        if found is None:
            return _failure(404, f"{name} not found")
        sandbox = found.get("status", {}).get("sandbox", {}).get("name", "")
        sandbox_found = self.objects["sandboxes"].pop(sandbox, {"metadata": {}})
        annotations = sandbox_found["metadata"].get("annotations", {})
        for pod in (name, annotations.get("agents.x-k8s.io/pod-name")):
            if pod in self.objects["pods"] or pod in self.rooms:
                self.objects["pods"].pop(pod, None)
                self._end_pod(pod)
        return web.json_response({"kind": "Status", "status": "Success"})

    def _end_pod(self, name: str) -> None:
        room = self.rooms.pop(name, None)
        if room is not None:
            room.end()

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        """Run a command: each message begins with the number of its stream."""
        room = self.rooms.get(request.match_info["name"])
        if room is None:
            return _failure(404, f"pods {request.match_info['name']} not found")
        socket = web.WebSocketResponse(protocols=_SUBPROTOCOLS)
        await socket.prepare(request)
        self._sockets.add(socket)
        self.subprotocols.append(socket.ws_protocol)
        try:
            await self._run(request, room, socket)
        finally:
            self._sockets.discard(socket)
        return socket

    async def _run(self, request: web.Request, room: Room, socket: web.WebSocketResponse) -> None:
        if self.oom or self.garbage:
            await self._say(socket, request.match_info["name"])
            return
        with room.run(request.query.getall("command")) as process:
            feeding = asyncio.create_task(_feed(socket, process))
            self.running.set()
            with contextlib.suppress(ConnectionError):
                await asyncio.gather(
                    _forward(socket, _STDOUT, process.stdout), _forward(socket, _STDERR, process.stderr)
                )
            code = await asyncio.to_thread(process.wait)
            feeding.cancel()
        if not socket.closed and not room.ended:
            await self._finish(socket, code)

    async def _say(self, socket: web.WebSocketResponse, pod: str) -> None:
        """Do not run the command; write garbage or nothing."""
        with contextlib.suppress(TimeoutError):
            while (await socket.receive(0.2)).type is WSMsgType.BINARY:
                pass
        if self.oom:
            terminated = {"state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}
            self.objects["pods"][pod]["status"] = {"phase": "Failed", "containerStatuses": [terminated]}
        with contextlib.suppress(ConnectionError):
            for begin in range(0, len(self.garbage), 1 << 15):
                await socket.send_bytes(bytes([_STDOUT]) + self.garbage[begin : begin + (1 << 15)])
            await self._finish(socket, 137 if self.oom else 0)

    async def _finish(self, socket: web.WebSocketResponse, code: int) -> None:
        status: dict = {"metadata": {}, "status": "Success"}
        if code:
            causes = [{"reason": "ExitCode", "message": str(code)}]
            status = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}
        with contextlib.suppress(ConnectionError):
            await socket.send_bytes(bytes([_STATUS]) + json.dumps(status).encode())
            await socket.close()


async def _feed(socket: web.WebSocketResponse, process) -> None:
    async for message in socket:
        if socket.ws_protocol == _SUBPROTOCOLS[0] and message.data[0] == _CLOSE:
            process.stdin.close()
        elif message.data[0] == 0:
            try:
                await asyncio.to_thread(_written, process.stdin, message.data[1:])
            except (OSError, ValueError):
                return


def _written(pipe, data: bytes) -> None:
    pipe.write(data)
    pipe.flush()


async def _forward(socket: web.WebSocketResponse, channel: int, pipe) -> None:
    while piece := await asyncio.to_thread(os.read, pipe.fileno(), 1 << 15):
        await socket.send_bytes(bytes([channel]) + piece)


def _ready(ready: bool) -> dict:
    reason = "DependenciesReady" if ready else "DependenciesNotReady"
    return {"conditions": [{"type": "Ready", "status": "True" if ready else "False", "reason": reason}]}


def _failure(status: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "status": "Failure", "message": message, "code": status}, status=status)
