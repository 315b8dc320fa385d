"""What this host has: the interpreter and libraries that calls may read, and ids that calls may have."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import ssl
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from letta_sandbox.cage.plan import EXCHANGE, LOOPBACK, NAMESPACE, NONE, Plan
from letta_sandbox.calls import Env, Limits

# `lt` in ASCII: far above the ids of users and those that /etc/subuid gives out.
_POOL_BASE = 0x6C740000
_PROGRAM_BASE = _POOL_BASE + (1 << 20)
_MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_PRELOAD = [
    "base64",
    "collections",
    "contextlib",
    "copy",
    "dataclasses",
    "datetime",
    "enum",
    "functools",
    "inspect",
    "io",
    "itertools",
    "json",
    "math",
    "operator",
    "os",
    "random",
    "re",
    "socket",
    "string",
    "struct",
    "sys",
    "textwrap",
    "threading",
    "time",
    "traceback",
    "typing",
    "urllib.parse",
    "uuid",
]
# What fewer tools use and every fork would pay for; a server of its own has it loaded.
_PRELOAD_FULL = [
    "asyncio",
    "calendar",
    "csv",
    "decimal",
    "difflib",
    "fractions",
    "hashlib",
    "heapq",
    "html",
    "logging",
    "pathlib",
    "secrets",
    "statistics",
    "tempfile",
    "unicodedata",
    "zoneinfo",
]
# What HTTP clients of tools import.
_PRELOAD_NETWORK = ["email.parser", "http.client", "http.cookiejar", "select", "ssl", "urllib.request"]
_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_MODELS = ("pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection")
_WARMUP = "letta_sandbox.inside.warmups"
_DATA = ("/etc/ld.so.cache", "/usr/share/zoneinfo")
_ASK = (
    "import json, sys, sysconfig; print(json.dumps({'version': list(sys.version_info[:2]), "
    "'library': sysconfig.get_path('stdlib'), 'modules': [p for p in sys.path if p.endswith('lib-dynload')], "
    "'triplet': sysconfig.get_config_var('MULTIARCH') or '', 'shared': sysconfig.get_config_var('LIBDIR') "
    "if sysconfig.get_config_var('Py_ENABLE_SHARED') else ''}))"
)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python outside of any virtual environment, and where its parts lie."""

    path: str
    version: tuple[int, int]
    library: str
    modules: tuple[str, ...]
    shared: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OwnPackages:
    """Packages of the operator that calls use. The fork server imports `modules` once, before it isolates itself.

    `packages` are the top-level ones that these come from; calls may read them, if they are installed.
    """

    packages: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()


def find_interpreter(path: str = "") -> Interpreter:
    """Ask an interpreter, by default the one that runs the service, where its parts lie. Raises OSError."""
    path = path or getattr(sys, "_base_executable", None) or sys.executable
    try:
        asked = subprocess.run([path, "-I", "-S", "-c", _ASK], capture_output=True, check=True, timeout=20, env={})
        answer = json.loads(asked.stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        raise OSError(f"{path} is no usable Python: {error}") from error
    triplet = answer["triplet"]
    usual = [f"/lib/{triplet}", f"/usr/lib/{triplet}"] if triplet else []
    shared = [
        place for place in (*usual, "/lib64", "/usr/lib64", *_libpython(answer["shared"])) if Path(place).exists()
    ]
    return Interpreter(
        path=path,
        version=(answer["version"][0], answer["version"][1]),
        library=answer["library"],
        modules=tuple(answer["modules"]),
        shared=tuple(dict.fromkeys(shared)),
    )


def _libpython(directory: str) -> list[str]:
    return [str(path) for path in Path(directory).glob("libpython3*.so*")] if directory else []


def make_plan(tier: str, python: Interpreter, *, calls: int, prefork: int, env: Env, place: int = 0) -> Plan:
    """Return the plan of a fork server on this host. Servers at different places have different ids for calls.

    The bare environment is kept small, every other has models and more loaded.
    """
    own_models = bool(env.path) and any(Path(env.path, name).exists() for name in _MODELS)
    without = not env.key or own_models or python.version != sys.version_info[:2]
    models = {} if without else _model_packages()
    inside = python.library + "/"
    modules = [path for path in python.modules if not path.startswith(inside)]
    more = [env.path] if env.path else []
    readable = [python.library, *modules, *python.shared, *_DATA, *models.values(), *more]
    size = calls + prefork + 64
    return Plan(
        tier=tier,
        readable=tuple(dict.fromkeys(path for path in readable if Path(path).exists())),
        hidden=tuple(inside + name for name in ("site-packages", "dist-packages")),
        import_path=(python.library, *python.modules, *more),
        preload_path=tuple(sorted({str(Path(path).parent) for path in models.values()})),
        preload=(*_PRELOAD, *(_PRELOAD_FULL if env.key else []), *([_WARMUP] if models else [])),
        pool_base=_pool_base(size, place) if os.getuid() == 0 and tier != NONE else 0,
        pool_size=size,
        prefork=prefork,
        ahead=env.modules,
    )


def with_own(plan: Plan, own: OwnPackages, python: Interpreter) -> Plan:
    """Return the plan with packages of the operator loaded. Raises OSError when this Python cannot load them."""
    if own.modules and python.version != sys.version_info[:2]:
        raise OSError(f"{python.path} cannot load packages of Python {sys.version_info[0]}.{sys.version_info[1]}")
    places = [place for name in own.packages for place in _places(name)]
    return replace(
        plan,
        readable=tuple(dict.fromkeys((*plan.readable, *places))),
        preload_path=tuple(dict.fromkeys((*plan.preload_path, *(str(Path(place).parent) for place in places)))),
        preload=(*plan.preload, *own.modules),
    )


def _places(name: str) -> list[str]:
    spec = importlib.util.find_spec(name)
    if spec is None:
        return []
    return list(spec.submodule_search_locations or ()) or [spec.origin or ""]


def with_stage(plan: Plan, most: Limits) -> Plan:
    """Return the plan with a stage that has the packages loaded, where calls can be forked from one.

    It may hold as much as the largest call and the packages besides, and as many tasks as all calls together.
    """
    if plan.tier != NAMESPACE or not plan.ahead:
        return plan
    stage = {
        "timeout_seconds": most.timeout_seconds,
        "memory_bytes": 2 * most.memory_bytes,
        "scratch_bytes": most.scratch_bytes,
        "open_files": most.open_files + 16,
        "processes": most.processes * plan.pool_size,
    }
    return replace(plan, stage=stage)


def with_network(plan: Plan) -> Plan:
    """Return the plan with a way to the egress proxy; without isolation there is none to leave out of."""
    if plan.tier == NONE:
        return plan
    places = (ssl.get_default_verify_paths().cafile, *_CERTIFICATES)
    certificates = next((place for place in places if place and Path(place).is_file()), "")
    return replace(
        plan,
        network=LOOPBACK if plan.tier == NAMESPACE else EXCHANGE,
        certificates=certificates,
        readable=(*plan.readable, *([certificates] if certificates else [])),
        preload=(*plan.preload, *_PRELOAD_NETWORK),
    )


def _model_packages() -> dict[str, str]:
    """Return where pydantic and what it needs lie; nothing when it is not installed."""
    places = {}
    for name in _MODELS:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            return {}
        places[name] = str(Path(spec.origin).parent) if spec.submodule_search_locations else spec.origin
    return places


def _pool_base(size: int, place: int) -> int:
    """Return the first of `size` ids that belong to nobody. Raises OSError when this host maps too few."""
    most = size * (place + 1)
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        first, _, count = map(int, line.split())
        if first <= _POOL_BASE and _POOL_BASE + most <= first + count:
            return _POOL_BASE + size * place
        # In a container: the last ids of its range, short of 65534, which is `nobody`, and 65535.
        if count >= 65536 > most * 2:
            return first + count - most - 2
    raise OSError("too few user ids are mapped for calls to have their own")


def memory_bytes() -> int:
    """Return the memory of this machine, or of the container that this process is in."""
    most = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _MEMORY_LIMITS:
        with contextlib.suppress(OSError, ValueError):
            most.append(int(Path(path).read_text()))
    return min(most)


def count_tasks(user: int) -> int:
    """Count the threads that a user has on this host."""
    total = 0
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        try:
            if entry.stat().st_uid == user:
                total += len(os.listdir(f"/proc/{entry.name}/task"))  # noqa: PTH208 - names alone, and many
        except OSError:
            continue
    return total


def shares_ids(plan: Plan) -> bool:
    """Whether calls run under the id of the service, and count against its tasks."""
    return not plan.pool_base and plan.tier != NAMESPACE


def program_ids(number: int, size: int) -> int:
    """Return the first of `size` ids for a program, away from those of calls. Raises OSError when too few exist."""
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        first, _, count = map(int, line.split())
        base = _PROGRAM_BASE if first <= _PROGRAM_BASE < first + count - (1 << 20) else first + (count >> 1)
        if count >= 65536 and number * size < min(count >> 2, 1 << 19):
            return base + number * size
    raise OSError("too few user ids are mapped for programs to have their own")
