"""Turns the end of a process and its frame into the status of a call."""

from __future__ import annotations

import math
import os
import signal

from letta_sandbox.cage.plan import SETUP_FAILED
from letta_sandbox.calls import CallEnding, Limits, ToolFailure
from letta_sandbox.local import frames
from letta_sandbox.local.frames import FrameOutcome
from letta_sandbox.local.servers import Ending

_NAMES = {item.value: item.name for item in signal.Signals}


def judge(ending: Ending, limits: Limits, token: str) -> FrameOutcome:
    """Say how a call ended. What the process says of itself counts least."""
    if ending.failed:
        return _fail(CallEnding.REFUSED, "NotStarted", ending.failed)
    if ending.output_exceeded:
        return _fail(CallEnding.OUTPUT_LIMIT, "OutputLimit", f"the tool wrote more than {limits.output_bytes} bytes")
    if ending.frame_exceeded:
        return _fail(CallEnding.OUTPUT_LIMIT, "ResultTooLarge", f"the result has more than {limits.result_bytes} bytes")
    outcome = frames.read_frame(ending.frame, token)
    if outcome is not None and (ending.status == 0 or not ending.timed_out):
        return _within(outcome, limits)
    if ending.timed_out:
        return _time_up(limits)
    return _death(ending, limits)


def _within(outcome: FrameOutcome, limits: Limits) -> FrameOutcome:
    if len(outcome.result.encode()) > limits.result_bytes:
        return _fail(CallEnding.OUTPUT_LIMIT, "ResultTooLarge", f"the result has more than {limits.result_bytes} bytes")
    return outcome


def _death(ending: Ending, limits: Limits) -> FrameOutcome:
    """Say what a process without a frame died of."""
    if os.WIFSIGNALED(ending.status):
        return _signalled(os.WTERMSIG(ending.status), ending, limits)
    code = os.waitstatus_to_exitcode(ending.status)
    if code == SETUP_FAILED and ending.stderr.startswith(b"isolation failed"):
        return _fail(CallEnding.CRASHED, "IsolationFailed", ending.stderr.decode(errors="replace")[:1000])
    return _fail(CallEnding.CRASHED, "Exited", f"the process exited with code {code} and without a result")


def _signalled(number: int, ending: Ending, limits: Limits) -> FrameOutcome:
    name = _NAMES.get(number, f"signal {number}")
    # RLIMIT_CPU ends a process by SIGKILL too, as its soft and hard limits are the same.
    spent = ending.cpu_seconds >= math.ceil(limits.timeout_seconds)
    if number == signal.SIGXCPU or (number == signal.SIGKILL and spent):
        return _time_up(limits)
    if number == signal.SIGKILL:
        return _fail(CallEnding.MEMORY, "Killed", "the kernel ended the process, as it does when memory runs out")
    if number == signal.SIGSYS:
        return _fail(CallEnding.DENIED, name, "the tool made a system call that isolation forbids")
    if ending.peak_memory_bytes >= limits.memory_bytes or b"out of memory" in ending.stderr:
        return _fail(CallEnding.MEMORY, name, f"the process died of {name} with its memory used up")
    return _fail(CallEnding.CRASHED, name, f"the process died of {name}")


def _time_up(limits: Limits) -> FrameOutcome:
    return _fail(CallEnding.TIMEOUT, "Timeout", f"the tool did not end within {limits.timeout_seconds:g} s")


def _fail(status: CallEnding, kind: str, message: str) -> FrameOutcome:
    return FrameOutcome(status, failure=ToolFailure(kind, message))
