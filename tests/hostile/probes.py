"""Says what the provider finds where it is, and how a call ends."""

from __future__ import annotations

import asyncio
import json
import sys

from letta_common.errors import IsolationUnavailable
from letta_sandbox.calls import Env, Isolation, SandboxCall
from letta_sandbox.local.provider import LocalOptions, LocalProvider


async def main(least: Isolation, interpreter: str) -> None:
    """Probe and call; one line of JSON."""
    provider = LocalProvider(LocalOptions(min_isolation=least, interpreter=interpreter))
    report = await provider.probe()
    try:
        result = await provider.run(SandboxCall("def f(): return 42", "f"), Env())
        ended = [result.status.name, result.result, result.isolation.name]
    except IsolationUnavailable as error:
        ended = ["ISOLATION_UNAVAILABLE", error.message]
    await provider.close()
    found = report.isolation.name if report.isolation else ""
    lacking = [sentence.partition(":")[0] for sentence in report.missing]
    sys.stdout.write(json.dumps({"isolation": found, "missing": lacking, "call": ended}) + "\n")


if __name__ == "__main__":
    asyncio.run(main(Isolation[sys.argv[1]], sys.argv[2]))
