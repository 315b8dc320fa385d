"""Measures isolated calls against a plain `python -c` in the same run; the last line is JSON.

python libs/sandbox/benchmarks/calls.py [--tier namespace|landlock] [--rounds 200]

Times on the clock grow with what else the machine does; seconds of processor, of every process, hardly do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from letta_sandbox.calls import CallEnding, Env, Isolation, Limits, SandboxCall
from letta_sandbox.inside import harness
from letta_sandbox.local import hosts
from letta_sandbox.local.provider import LocalOptions, LocalProvider

TOOL = "def add(a: int, b: int) -> int:\n    return a + b\n"
SLEEP = "import time\ndef f(i):\n    time.sleep(0.5)\n    return i\n"
SPIN = "def f():\n    while True:\n        pass\n"
PLAIN = f"import json, sys\n{TOOL}\nprint(json.dumps(add(**json.loads(sys.argv[1]))))"
HARNESS = (
    f"import sys; sys.path.insert(0, {str(Path(harness.__file__).parents[2])!r}); "
    "from letta_sandbox.inside import harness; harness.rehearse(())"
)
ARGUMENTS = '{"a": 1, "b": 2}'


async def call_once(provider: LocalProvider) -> float:
    """Return the milliseconds of one call."""
    begun = time.perf_counter()
    result = await provider.run(SandboxCall(TOOL, "add", ARGUMENTS), Env())
    if (result.status, result.result) != (CallEnding.SUCCESS, "3"):
        raise SystemExit(f"unexpected result: {result}")
    return (time.perf_counter() - begun) * 1000


async def plain_once(python: str, script: str) -> float:
    """Return the milliseconds of the same work by a fresh interpreter, not isolated at all."""
    begun = time.perf_counter()
    process = await asyncio.create_subprocess_exec(python, "-c", script, ARGUMENTS, stdout=asyncio.subprocess.PIPE)
    await process.communicate()
    if process.returncode:
        raise SystemExit(f"{script} failed")
    return (time.perf_counter() - begun) * 1000


async def alternate(provider: LocalProvider, python: str, rounds: int) -> dict[str, object]:
    """Measure both ways in turn, so that other work on the machine meets both."""
    for _ in range(10):
        await call_once(provider)
    ours, plain, same = [], [], []
    for turn in range(rounds):
        ours.append(await call_once(provider))
        if turn % 5 == 0:
            plain.append(await plain_once(python, PLAIN))
            same.append(await plain_once(python, HARNESS))
    return {
        "call_ms": summary(ours),
        "python_c_ms": summary(plain),
        "python_c_harness_ms": summary(same),
        "times_faster": round(statistics.median(plain) / statistics.median(ours), 1),
        "times_faster_than_harness": round(statistics.median(same) / statistics.median(ours), 1),
    }


async def burst(provider: LocalProvider, count: int) -> dict[str, object]:
    """Run many calls of half a second at once."""
    begun = time.perf_counter()
    results = await asyncio.gather(
        *(provider.run(SandboxCall(SLEEP, "f", json.dumps({"i": i})), Env()) for i in range(count))
    )
    seconds = time.perf_counter() - begun
    right = sum(result.result == str(i) for i, result in enumerate(results))
    return {"calls": count, "seconds": round(seconds, 3), "right": right}


async def beside_hostile(provider: LocalProvider, rounds: int) -> dict[str, object]:
    """Measure calls beside four that spin, and without them, in turns."""
    quiet, beside = [], []
    for _ in range(4):
        quiet += [await call_once(provider) for _ in range(rounds // 4)]
        hostile = [
            asyncio.create_task(provider.run(SandboxCall(SPIN, "f", limits=Limits(timeout_seconds=60)), Env()))
            for _ in range(4)
        ]
        await asyncio.sleep(0.3)
        beside += [await call_once(provider) for _ in range(rounds // 4)]
        for task in hostile:
            task.cancel()
        await asyncio.gather(*hostile, return_exceptions=True)
        await asyncio.sleep(0.1)
    ratio = statistics.median(beside) / statistics.median(quiet)
    return {"quiet_ms": summary(quiet), "beside_four_spinning_ms": summary(beside), "ratio": round(ratio, 2)}


def processor_ms(python: str, tier: Isolation, count: int) -> dict[str, float]:
    """Return the milliseconds of processor of one call, all of its processes counted, and of one `python -c`."""
    calls = [sys.executable, __file__, "--tier", tier.name.lower(), "--calls"]
    few, many = (_used([*calls, str(number)]) for number in (20, 20 + count))
    plain = [_used([python, "-c", PLAIN, ARGUMENTS]) for _ in range(20)]
    ours, theirs = (many - few) / count * 1000, statistics.median(plain) * 1000
    return {"call": round(ours, 2), "python_c": round(theirs, 2), "times_less": round(theirs / ours, 1)}


def _used(command: list[str]) -> float:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} failed")
    return usage.ru_utime + usage.ru_stime


def summary(values: list[float]) -> dict[str, float]:
    """Return median, 95th percentile and least."""
    ordered = sorted(values)
    return {
        "p50": round(statistics.median(ordered), 2),
        "p95": round(ordered[int(len(ordered) * 0.95)], 2),
        "min": round(ordered[0], 2),
    }


def interpreter() -> str:
    """Return an interpreter that calls under another user id can read."""
    for parent in Path(hosts.find_interpreter().library).parents:
        if not parent.stat().st_mode & 0o001:
            return "/usr/bin/python3"
    return ""


async def started(tier: Isolation) -> LocalProvider:
    """Return a provider of one tier."""
    provider = LocalProvider(LocalOptions(tiers=(tier,), interpreter=interpreter() if os.getuid() == 0 else ""))
    report = await provider.probe()
    if report.isolation is None:
        raise SystemExit("; ".join(report.missing))
    return provider


async def calls_alone(tier: Isolation, count: int) -> dict[str, object]:
    """Make calls and nothing else, for whoever counts what they use."""
    provider = await started(tier)
    for _ in range(count):
        await call_once(provider)
    await provider.close()
    return {"calls": count}


async def main(tier: Isolation, rounds: int) -> dict[str, object]:
    """Measure one tier."""
    provider = await started(tier)
    try:
        plain = (interpreter() if os.getuid() == 0 else "") or hosts.find_interpreter().path
        measured = {"tier": tier.name, "load": os.getloadavg()[0], **await alternate(provider, plain, rounds)}
        measured["processor_ms"] = await asyncio.to_thread(processor_ms, plain, tier, rounds)
        measured["burst"] = [await burst(provider, count) for count in (1, 50, 200)]
        measured["neighbours"] = await beside_hostile(provider, rounds)
        return measured
    finally:
        await provider.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tier", choices=["namespace", "landlock"], default="namespace")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--calls", type=int, default=0, help="make so many calls and measure nothing")
    chosen = parser.parse_args()
    wanted = Isolation[chosen.tier.upper()]
    work = calls_alone(wanted, chosen.calls) if chosen.calls else main(wanted, chosen.rounds)
    sys.stdout.write(json.dumps(asyncio.run(work)) + "\n")
