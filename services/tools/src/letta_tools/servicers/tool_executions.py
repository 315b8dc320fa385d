"""ToolExecutionService: calls over gRPC."""

from __future__ import annotations

from typing import Any

import grpc.aio
from google.protobuf.duration_pb2 import Duration

from letta.tools.v1 import tool_execution_service_pb2 as pb
from letta.tools.v1 import tool_execution_service_pb2_grpc
from letta_common.actor import current_actor
from letta_sandbox.calls import Isolation, Limits, Result, SandboxProvider
from letta_tools.domain.executions.executions import Execution, Executions
from letta_tools.domain.executions.outcomes import Outcome
from letta_tools.domain.executions.sandbox_calls import SandboxExecutor
from letta_tools.domain.registry.tools import Tools
from letta_tools.servicers.limits import within_deadline

# No sandbox of ours carried these calls out, so nothing is said of isolation.
_ELSEWHERE = ("", "mcp", "web")
_Context = grpc.aio.ServicerContext[Any, Any]


class ToolExecutionServicer(tool_execution_service_pb2_grpc.ToolExecutionServiceServicer):
    """Answers for executions."""

    def __init__(
        self, executions: Executions, tools: Tools, sandbox_calls: SandboxExecutor, sandbox: SandboxProvider
    ) -> None:
        self._executions = executions
        self._tools = tools
        self._sandbox_calls = sandbox_calls
        self._sandbox = sandbox

    async def Execute(self, request: pb.ExecuteRequest, context: _Context) -> pb.ExecuteResponse:
        outcome = await self._executions.execute(current_actor(), _execution(request))
        return _pack(outcome)

    async def Prepare(self, request: pb.PrepareRequest, context: _Context) -> pb.PrepareResponse:
        actor = current_actor()
        tool = await self._tools.get(actor, request.tool_id)
        env = await self._sandbox_calls.prepare(actor, tool)
        return pb.PrepareResponse(environment_key=env.key)

    async def GetIsolation(self, request: pb.GetIsolationRequest, context: _Context) -> pb.GetIsolationResponse:
        report = await self._sandbox.probe()
        return pb.GetIsolationResponse(
            provider=_provider(report.provider),
            isolation=_isolation(report.isolation),
            missing=report.missing,
        )


def _execution(request: pb.ExecuteRequest) -> Execution:
    limits = request.limits
    return Execution(
        arguments=request.arguments,
        tool_id=request.tool_id,
        tool_version=request.tool_version,
        source=request.source if request.HasField("source") else None,
        environment_variables=dict(request.environment_variables),
        agent_state=request.agent_state,
        agent_id=request.agent_id,
        limits=within_deadline(
            Limits(
                timeout_seconds=limits.timeout.ToNanoseconds() / 1e9,
                memory_bytes=limits.memory_bytes,
                scratch_bytes=limits.scratch_bytes,
                processes=limits.processes,
                result_bytes=limits.result_bytes,
                output_bytes=limits.output_bytes,
                open_files=0,
            )
        ),
        idempotency_key=request.idempotency_key,
    )


def _pack(outcome: Outcome) -> pb.ExecuteResponse:
    result = outcome.result
    name = "OUTCOME_UNKNOWN" if outcome.unknown else result.status.value
    failure = result.failure
    return pb.ExecuteResponse(
        status=pb.ExecutionStatus.Value(f"EXECUTION_STATUS_{name}"),
        result=result.result,
        error_message=_text(failure.message) if failure else "",
        error_type=_text(failure.kind) if failure else "",
        stdout=_text(result.stdout),
        stderr=_text(_stderr(result)),
        truncated=result.truncated,
        usage=_pack_usage(result),
        isolation=_isolation(None if result.provider in _ELSEWHERE else result.isolation),
        provider=_provider(result.provider),
        changed_blocks=result.changed_blocks,
        repeated_call=outcome.repeated,
        tool_version=outcome.tool_version,
    )


def _isolation(isolation: Isolation | None) -> pb.Isolation.ValueType:
    return pb.Isolation.Value(f"ISOLATION_{isolation.name if isolation else 'UNSPECIFIED'}")


def _provider(name: str) -> pb.ExecutionProvider.ValueType:
    return pb.ExecutionProvider.Value(f"EXECUTION_PROVIDER_{name.upper() or 'UNSPECIFIED'}")


def _stderr(result: Result) -> str:
    """Return standard error with the tool's traceback at its end."""
    traceback = result.failure.traceback if result.failure else ""
    return "\n".join(filter(None, (result.stderr, traceback)))


def _pack_usage(result: Result) -> pb.ExecutionUsage:
    usage = result.usage
    packed = pb.ExecutionUsage(peak_memory_bytes=usage.peak_memory_bytes)
    packed.wall_time.CopyFrom(_duration(usage.wall_seconds))
    packed.cpu_time.CopyFrom(_duration(usage.cpu_seconds))
    return packed


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration


def _text(text: str) -> str:
    """Replace what no UTF-8 can hold."""
    return text.encode("utf-8", "replace").decode()
