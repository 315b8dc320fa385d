"""Builds the tools service from its parts."""

from __future__ import annotations

from datetime import timedelta

from letta.tools.v1 import (
    mcp_server_service_pb2_grpc,
    sandbox_config_service_pb2_grpc,
    tool_execution_service_pb2_grpc,
    tool_service_pb2_grpc,
)
from letta.tools.v1.sandbox_config_pb2 import SandboxType
from letta_common.egress import AddressGuard
from letta_common.fair_slots import FairSlots, Shares
from letta_common.process.periodic import Periodic
from letta_common.sealing import Sealer
from letta_postgres.db import Database, DatabaseOptions
from letta_postgres.migrations import upgrade
from letta_postgres.resealing import Resealer, SealedColumn
from letta_rpc.service import Deps, Service
from letta_sandbox.calls import Isolation, Limits, SandboxProvider
from letta_sandbox.destinations import Destinations, read_destinations
from letta_sandbox.egress import Egress, EgressLimits
from letta_sandbox.local import hosts
from letta_sandbox.local.memory_watch import MemoryShares
from letta_sandbox.local.programs import ProgramOptions, Programs
from letta_sandbox.local.provider import LocalOptions, LocalProvider
from letta_sandbox.remote.docker_engine import DockerMachines, DockerOptions
from letta_sandbox.remote.e2b_cloud import E2BMachines, E2BOptions
from letta_sandbox.remote.kubernetes_cluster import KubernetesMachines, KubernetesOptions
from letta_sandbox.remote.machines import Machines
from letta_sandbox.remote.modal_cloud import ModalMachines, ModalOptions
from letta_sandbox.remote.pool import PoolOptions
from letta_sandbox.remote.provider import RemoteOptions, RemoteProvider
from letta_tools.domain.executions.builtin_calls import BuiltinExecutor
from letta_tools.domain.executions.code_runs import CodeExecutor
from letta_tools.domain.executions.egress import Ceiling, EgressPolicy
from letta_tools.domain.executions.executions import Executions, Executor
from letta_tools.domain.executions.fair_calls import FairExecutor
from letta_tools.domain.executions.sandbox_calls import SandboxExecutor
from letta_tools.domain.executions.sandbox_configs import KINDS, LOCAL, VARIABLES, SandboxConfigs
from letta_tools.domain.executions.web_calls import FetchExecutor, SearchExecutor
from letta_tools.domain.mcp.calls import MCPExecutor
from letta_tools.domain.mcp.connects import ConnectOptions, MCPConnects
from letta_tools.domain.mcp.oauth import ANSWERS, GRANTS, OAuthGrants
from letta_tools.domain.mcp.servers import SERVERS, MCPServers
from letta_tools.domain.registry.builtin import builtin_tools
from letta_tools.domain.registry.records import ToolType
from letta_tools.domain.registry.tools import Tools
from letta_tools.providers.mcp import LateClient, MCPOptions, StdioOptions
from letta_tools.providers.web import GuardedWeb, WebOptions
from letta_tools.servicers.mcp_servers import MCPServerServicer
from letta_tools.servicers.sandbox_configs import SandboxConfigServicer
from letta_tools.servicers.tool_executions import ToolExecutionServicer
from letta_tools.servicers.tools import ToolServicer
from letta_tools.settings import ToolsSettings
from letta_tools.store.executions import SqlExecutionStore
from letta_tools.store.mcp_oauth import SqlOAuthStore
from letta_tools.store.mcp_servers import SqlMCPServerStore
from letta_tools.store.sandbox_configs import SqlSandboxConfigStore
from letta_tools.store.tools import SqlToolStore

SCHEMA = "tools"
SEALED = (
    SealedColumn(VARIABLES, ("sandbox_config_id", "key")),
    SealedColumn(SERVERS),
    SealedColumn(GRANTS, ("mcp_server_id",)),
    SealedColumn(ANSWERS),
)
_HOUR = 3600.0


async def build(settings: ToolsSettings, deps: Deps) -> Service:
    """Bring the database up to date, connect to it and return the service."""
    db = await _database(settings)
    most = Limits(timeout_seconds=settings.execution_timeout_seconds, memory_bytes=settings.execution_memory_bytes)
    sandbox = _sandbox(settings, most)
    sealer = Sealer(settings.sealing_secrets())
    tool_store = SqlToolStore(db)
    tools = Tools(tool_store, deps.clock, builtin_tools())
    config_store, server_store = SqlSandboxConfigStore(db), SqlMCPServerStore(db)
    configs = SandboxConfigs(config_store, sealer, deps.clock, _egress_policy(settings), _kind(settings))
    guard = AddressGuard(settings.egress_allowed_hosts)
    grants = OAuthGrants(SqlOAuthStore(db), sealer, deps.clock)
    mcp = LateClient(guard, _mcp_options(settings), Programs(_program_options(settings)), grants)
    servers = MCPServers(server_store, tool_store, mcp, sealer, deps.clock)
    connects = MCPConnects(servers, _connect_options(settings))
    calls = SandboxExecutor(sandbox, configs)
    store = SqlExecutionStore(db, keep=timedelta(days=settings.keep_executions_days))
    elsewhere = FairSlots(_shares(settings), "MCP and web calls")
    web = {name: FairExecutor(each, elsewhere) for name, each in _web_executors(settings, guard, configs).items()}
    builtin: dict[str, Executor] = {"run_code": CodeExecutor(sandbox, configs), **web}
    executors: dict[ToolType, Executor] = {
        ToolType.CUSTOM: calls,
        ToolType.EXTERNAL_MCP: FairExecutor(MCPExecutor(servers, configs), elsewhere),
        ToolType.LETTA_BUILTIN: BuiltinExecutor(builtin),
    }
    executions = Executions(tools, store, executors, most)

    background = Periodic("seal anew", Resealer(db, sealer, SEALED).reseal, _HOUR, at_once=True)

    async def start() -> None:
        background.start()
        for part in (store, executions, sandbox):
            await part.start()

    async def close() -> None:
        await background.stop()
        for part in (executions, servers, sandbox, store, db):
            await part.close()

    return Service(
        name="tools",
        servicers=(
            (tool_service_pb2_grpc.add_ToolServiceServicer_to_server, ToolServicer(tools, executions, deps.clock)),
            (
                tool_execution_service_pb2_grpc.add_ToolExecutionServiceServicer_to_server,
                ToolExecutionServicer(executions, tools, calls, sandbox),
            ),
            (
                sandbox_config_service_pb2_grpc.add_SandboxConfigServiceServicer_to_server,
                SandboxConfigServicer(configs, config_store),
            ),
            (
                mcp_server_service_pb2_grpc.add_MCPServerServiceServicer_to_server,
                MCPServerServicer(servers, executions, configs, connects, grants, store=server_store),
            ),
        ),
        start=start,
        close=close,
        alive=db.alive,
    )


async def _database(settings: ToolsSettings) -> Database:
    dsn = settings.database_url.get_secret_value()
    await upgrade(dsn, package="letta_tools", schema=SCHEMA)
    options = DatabaseOptions(pool_size=settings.pool_size, application_name="letta-tools")
    return await Database.open(dsn, schema=SCHEMA, options=options)


def _web_executors(settings: ToolsSettings, guard: AddressGuard, environment: SandboxConfigs) -> dict[str, Executor]:
    """Return the executors of the web tools; none without egress."""
    if not settings.web_egress:
        return {}
    web = GuardedWeb(guard, WebOptions(exa_url=settings.exa_base_url.rstrip("/")))
    key = settings.exa_api_key.get_secret_value()
    return {"fetch_webpage": FetchExecutor(web), "web_search": SearchExecutor(web, environment, key)}


def _egress_policy(settings: ToolsSettings) -> EgressPolicy:
    """Return what tools may reach. Raises InvalidArgument for a setting that is no host."""
    ceiling = Ceiling(read_destinations(settings.egress_hosts_of_organizations))
    return EgressPolicy(read_destinations(settings.egress_hosts), ceiling)


def _kind(settings: ToolsSettings) -> SandboxType.ValueType:
    """Return whose configuration counts: calls on hosts of the operator, in containers too, are of the local kind."""
    return KINDS.get(settings.sandbox_provider, LOCAL)


def _egress(settings: ToolsSettings) -> Egress | None:
    """Return who carries what tools send out; nobody where nothing is opened."""
    if not settings.egress_hosts and not settings.egress_hosts_of_organizations:
        return None
    limits = EgressLimits(seconds=settings.execution_timeout_seconds, bytes=settings.egress_bytes)
    return Egress(AddressGuard(settings.egress_allowed_hosts), AddressGuard(), limits)


def _mcp_options(settings: ToolsSettings) -> MCPOptions:
    return MCPOptions(
        stdio=StdioOptions(
            enabled=settings.mcp_stdio,
            organizations=("*",) if settings.dev_mode else settings.mcp_stdio_organizations,
            commands=settings.mcp_stdio_commands,
            shares=_program_shares(settings),
            memory_bytes=settings.mcp_stdio_memory_bytes,
            idle_seconds=settings.mcp_stdio_idle_seconds,
        ),
        connect_seconds=settings.mcp_connect_seconds,
        list_seconds=settings.mcp_list_seconds,
    )


def _connect_options(settings: ToolsSettings) -> ConnectOptions:
    return ConnectOptions(settings.mcp_oauth_redirect_url, settings.mcp_oauth_wait_seconds)


def _program_egress(settings: ToolsSettings) -> Egress:
    """Return who carries what programs send; they stay, so that no time of a call ends their connections."""
    limits = EgressLimits(seconds=settings.mcp_stdio_idle_seconds, bytes=settings.egress_bytes)
    return Egress(AddressGuard(settings.egress_allowed_hosts), AddressGuard(), limits)


def _program_options(settings: ToolsSettings) -> ProgramOptions:
    """Return how stdio servers run: those of several organizations never share what a namespace keeps apart."""
    tenants = settings.mcp_stdio_organizations
    several = len(tenants) > 1 or "*" in tenants
    least = Isolation[settings.min_isolation.upper()]
    limits = Limits(
        memory_bytes=settings.mcp_stdio_memory_bytes, scratch_bytes=256 << 20, processes=64, open_files=1024
    )
    return ProgramOptions(
        min_isolation=max(least, Isolation.NAMESPACE) if several else least,
        allow_unsandboxed=settings.allow_unsandboxed,
        readable=settings.mcp_stdio_paths,
        # The home may hold the deployment's encryption key.
        hidden=(str(settings.home),),
        destinations=Destinations(read_destinations(settings.mcp_stdio_hosts)),
        egress=_program_egress(settings),
        interpreter=settings.interpreter,
        limits=limits,
    )


def _sandbox(settings: ToolsSettings, most: Limits) -> SandboxProvider:
    """Return the provider that the settings name. Raises RuntimeError when its SDK is not installed."""
    if settings.sandbox_provider == "local":
        return LocalProvider(_local_options(settings, most))
    options = RemoteOptions(
        min_isolation=Isolation[settings.min_isolation.upper()],
        limits=most,
        pool=PoolOptions(_shares(settings), settings.machine_idle_seconds, settings.machine_lifetime_seconds),
        interpreter=settings.interpreter,
        package_directory=settings.package_directory,
        package_index=settings.package_index,
        owner_directory=str(settings.home / "machines"),
    )
    return RemoteProvider(_machines(settings), options)


def _shares(settings: ToolsSettings) -> Shares:
    """Return how organizations share the calls at once; none waits for longer than a call may take."""
    return Shares(
        slots=settings.concurrent_calls,
        tenant_slots=settings.concurrent_calls_per_organization,
        waiting=settings.waiting_calls_per_organization,
        patience=settings.execution_timeout_seconds,
        leave_room=True,
    )


def _program_shares(settings: ToolsSettings) -> Shares:
    """Return how organizations share stdio MCP servers. Those that find no room are refused, so nobody waits."""
    memory = _memory(settings)
    return Shares(
        slots=settings.mcp_stdio_servers,
        tenant_slots=settings.mcp_stdio_servers_per_organization,
        size=memory.all,
        tenant_size=memory.organization,
        leave_room=True,
    )


def _memory(settings: ToolsSettings) -> MemoryShares:
    # As much again is for stdio MCP servers, which leaves a quarter to the services.
    together = settings.calls_memory_bytes or hosts.memory_bytes() * 3 // 8
    return MemoryShares(together, settings.calls_memory_bytes_per_organization or together // 2)


def _machines(settings: ToolsSettings) -> Machines:
    if settings.sandbox_provider == "docker":
        return DockerMachines(DockerOptions(settings.docker_address, settings.docker_image, settings.docker_runtime))
    if settings.sandbox_provider == "e2b":
        key = settings.e2b_api_key.get_secret_value()
        return E2BMachines(E2BOptions(key, settings.e2b_template, settings.e2b_api_url, settings.e2b_sandbox_url))
    if settings.sandbox_provider == "kubernetes":
        return KubernetesMachines(_kubernetes_options(settings))
    return ModalMachines(_modal_options(settings))


def _kubernetes_options(settings: ToolsSettings) -> KubernetesOptions:
    return KubernetesOptions(
        namespace=settings.kubernetes_namespace,
        image=settings.kubernetes_image,
        runtime_class=settings.kubernetes_runtime_class,
        warm_pool=settings.kubernetes_warm_pool,
        resource=settings.kubernetes_resource,
        config_file=settings.kubernetes_config_file,
        start_seconds=settings.machine_start_seconds,
    )


def _modal_options(settings: ToolsSettings) -> ModalOptions:
    return ModalOptions(
        token_id=settings.modal_token_id,
        token_secret=settings.modal_token_secret.get_secret_value(),
        app=settings.modal_app,
        image=settings.modal_image,
        environment=settings.modal_environment,
    )


def _local_options(settings: ToolsSettings, most: Limits) -> LocalOptions:
    return LocalOptions(
        min_isolation=Isolation[settings.min_isolation.upper()],
        allow_unsandboxed=settings.allow_unsandboxed,
        limits=most,
        shares=_shares(settings),
        memory=_memory(settings),
        prefork=settings.prefork,
        interpreter=settings.interpreter,
        package_directory=settings.package_directory,
        package_index=settings.package_index,
        node=settings.node,
        egress=_egress(settings),
    )
