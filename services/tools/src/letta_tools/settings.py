"""Settings of the tools service."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, SecretStr

from letta_common.process.settings import Settings


class ToolsSettings(Settings):
    """Settings of tools: LETTA_TOOLS_X wins over LETTA_X."""

    service: ClassVar[str] = "tools"

    bind: str = Field(default="127.0.0.1:50053", description="Address and port of the gRPC server.")
    pool_size: int = Field(default=10, ge=1, description="Most database connections of this process.")
    sandbox_provider: Literal["local", "docker", "e2b", "kubernetes", "modal"] = Field(
        default="local", description="Who runs custom tools. Calls never move to another provider."
    )
    docker_address: str = Field(default="", description="Address of the Docker engine; empty: the usual one.")
    docker_image: str = Field(default="python:3.11-slim", description="Image that calls run in, with `python3`.")
    docker_runtime: str = Field(default="", description="Runtime of containers, such as `runsc` or `kata`.")
    e2b_api_key: SecretStr = Field(default=SecretStr(""), description="Key of E2B.")
    e2b_template: str = Field(default="", description="Template of E2B sandboxes, with `python3`; empty: E2B's own.")
    e2b_api_url: str = Field(default="", description="Address of an E2B API of one's own.")
    e2b_sandbox_url: str = Field(default="", description="Address of the sandboxes of an E2B deployment of one's own.")
    kubernetes_namespace: str = Field(default="default", description="Namespace that pods of calls are in.")
    kubernetes_image: str = Field(default="python:3.11-slim", description="Image of pods, with `python3`.")
    kubernetes_runtime_class: str = Field(
        default="",
        description="Runtime class that pods must have, such as `gvisor` or `kata`; empty: the cluster's own.",
    )
    kubernetes_resource: Literal["sandbox", "pod"] = Field(
        default="sandbox", description="What is made for a call: a Sandbox of agent-sandbox, or a bare pod."
    )
    kubernetes_warm_pool: str = Field(
        default="", description="SandboxWarmPool that pods are claimed from; its template says what they are."
    )
    kubernetes_config_file: str = Field(
        default="",
        description="File with the address and credentials of a cluster; empty: the one this process runs in.",
    )
    modal_token_id: str = Field(default="", description="Id of the token of Modal.")
    modal_token_secret: SecretStr = Field(default=SecretStr(""), description="Secret of the token of Modal.")
    modal_app: str = Field(
        default="letta-tools", description="App of Modal that sandboxes belong to; made when absent."
    )
    modal_image: str = Field(
        default="",
        description="Image of Modal sandboxes, with `python3`; empty: Modal's Debian with the service's Python.",
    )
    modal_environment: str = Field(default="", description="Environment of Modal; empty: the account's default.")
    machine_idle_seconds: float = Field(
        default=0.0,
        ge=0,
        description="How long a remote machine waits for the next call of the same organization and packages; 0: each "
        "call has a machine of its own.",
    )
    machine_lifetime_seconds: float = Field(
        default=1800.0, gt=0, description="Longest time that a remote machine is used again."
    )
    machine_start_seconds: float = Field(default=60.0, gt=0, description="Longest wait for a pod to run.")
    min_isolation: Literal["none", "landlock", "namespace", "vm"] = Field(
        default="landlock", description="Weakest isolation that tools may run with; several tenants need `namespace`."
    )
    allow_unsandboxed: bool = Field(
        default=False, description="Run tools without isolation where the host offers none. Each answer says so."
    )
    interpreter: str = Field(default="", description="Python that tools run with; empty: the service's own.")
    node: str = Field(
        default="", description="Node that TypeScript tools run with; empty: the first one of the search path."
    )
    package_directory: str = Field(
        default="", description="Where packages that tools require are installed, not under /tmp; empty: none are."
    )
    package_index: str = Field(default="", description="Address of the package index; empty: the installer's default.")
    execution_timeout_seconds: float = Field(default=180.0, gt=0, description="Longest time of a call.")
    execution_memory_bytes: int = Field(default=1 << 30, gt=0, description="Most memory of a call.")
    concurrent_calls: int = Field(default=256, ge=1, description="Most calls at once; more wait for their turn.")
    concurrent_calls_per_organization: int = Field(
        default=64, ge=1, description="Most calls of one organization at once, of each kind: sandbox, and MCP and web."
    )
    waiting_calls_per_organization: int = Field(
        default=500, ge=0, description="Most calls of one organization that wait; more are refused."
    )
    calls_memory_bytes: int = Field(
        default=0,
        ge=0,
        description="Memory that all calls on this host may take together, and as much again all stdio MCP servers; 0: "
        "three eighths of the machine's, or of the container's.",
    )
    calls_memory_bytes_per_organization: int = Field(
        default=0,
        ge=0,
        description="Memory that the calls of one organization may take together, and as much again its stdio MCP "
        "servers; 0: half of calls_memory_bytes.",
    )
    prefork: int = Field(default=2, ge=0, description="Processes kept ready for the next call.")
    mcp_stdio: bool = Field(
        default=False,
        description="Allow MCP servers that are programs on this host, each isolated; in dev_mode for everybody, else "
        "for the organizations that `tools_mcp_stdio_organizations` names.",
    )
    mcp_stdio_organizations: tuple[str, ...] = Field(
        default=(),
        description="Organizations that may have stdio MCP servers, `*` for all; more than one needs tier `namespace`.",
    )
    mcp_stdio_commands: tuple[str, ...] = Field(
        default=(),
        description="Programs that stdio MCP servers may be, with no variables that could have others run; empty: any "
        "that can be seen from inside.",
    )
    mcp_stdio_paths: tuple[str, ...] = Field(
        default=(),
        description="What stdio MCP servers may read besides /usr, such as packages installed for them.",
    )
    mcp_stdio_hosts: tuple[str, ...] = Field(
        default=(),
        description="Hosts that stdio MCP servers may reach, as in `tools_egress_hosts`; on tier `namespace` alone.",
    )
    mcp_stdio_memory_bytes: int = Field(default=1 << 30, gt=0, description="Most memory of a stdio MCP server.")
    mcp_stdio_servers: int = Field(default=64, ge=1, description="Most stdio MCP servers at work at once.")
    mcp_stdio_servers_per_organization: int = Field(
        default=8, ge=1, description="Most stdio MCP servers of one organization at work at once."
    )
    mcp_stdio_idle_seconds: float = Field(
        default=300.0, gt=0, description="How long a stdio MCP server stays that nobody asks."
    )
    mcp_oauth_redirect_url: str = Field(
        default="http://localhost:8283/v1/tools/mcp/oauth/callback",
        description="Where authorization servers of MCP servers send people back to. Without dev_mode a page of "
        "one's own that hands `code` and `state` to /v1/tools/mcp/oauth/callback with the caller's credential.",
    )
    mcp_oauth_wait_seconds: float = Field(
        default=300.0, gt=0, description="How long a person may take to authorize an MCP server."
    )
    mcp_connect_seconds: float = Field(
        default=30.0, gt=0, description="Longest wait for a connection to an MCP server."
    )
    mcp_list_seconds: float = Field(default=30.0, gt=0, description="Longest wait for the tools of an MCP server.")
    web_egress: bool = Field(default=False, description="Let agents search the web and fetch pages.")
    exa_api_key: SecretStr = Field(
        default=SecretStr(""), description="Key of the search engine Exa, for agents without EXA_API_KEY of their own."
    )
    exa_base_url: str = Field(default="https://api.exa.ai", description="Address of the search engine Exa.")
    egress_allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="Host names, addresses and networks that tools may reach though they are not public.",
    )
    egress_hosts: tuple[str, ...] = Field(
        default=(),
        description="Hosts that custom tools of every organization may reach by HTTPS through the egress proxy, such "
        "as `api.example.com`, `*.example.com:8443` or `*`; those that are not public must be in egress_allowed_hosts "
        "too.",
    )
    egress_hosts_of_organizations: tuple[str, ...] = Field(
        default=(),
        description="Public hosts that organizations may open for their own tools by `egress_hosts` of their local "
        "sandbox configuration, written as in egress_hosts; `*` for all.",
    )
    egress_bytes: int = Field(default=64 << 20, gt=0, description="Most bytes that one connection of a tool carries.")
    keep_executions_days: float = Field(
        default=7.0, gt=0, description="How long a repeated idempotency key is answered as before."
    )
