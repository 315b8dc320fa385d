"""Settings of the llm_gateway service."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import AliasChoices, Field, SecretStr

from letta_common.process.settings import Settings

_NONE = SecretStr("")


def _vendor(variable: str, description: str, default: Any = _NONE) -> Any:
    """Return a field that is read from the vendor's own variable as well, for example OPENAI_API_KEY."""
    name = variable.lower()
    return Field(
        default=default,
        validation_alias=AliasChoices(name, f"letta_llm_gateway_{name}", f"letta_{name}", variable),
        description=description,
    )


class LLMGatewaySettings(Settings):
    """Settings of llm_gateway: LETTA_LLM_GATEWAY_X wins over LETTA_X; vendors' own variables are read too."""

    service: ClassVar[str] = "llm_gateway"

    bind: str = Field(default="127.0.0.1:50054", description="Address and port of the gRPC server.")
    pool_size: int = Field(default=4, ge=1, description="Most database connections of this process.")
    default_llm_handle: str = Field(default="", description="Default model, `provider/name`; empty: chosen at start.")
    default_embedding_handle: str = Field(default="", description="Default embedder; empty: the local one.")
    openai_api_key: SecretStr = _vendor("OPENAI_API_KEY", "Key of OpenAI.")
    openai_base_url: str = _vendor("OPENAI_BASE_URL", "Any server that speaks OpenAI's chat completions.", "")
    openai_responses: bool = Field(
        default=False, description="Every OpenAI model speaks the responses wire, not only reasoning ones."
    )
    anthropic_api_key: SecretStr = _vendor("ANTHROPIC_API_KEY", "Key of Anthropic.")
    anthropic_base_url: str = _vendor("ANTHROPIC_BASE_URL", "Another server that speaks Anthropic's messages.", "")
    ollama_base_url: str = _vendor("OLLAMA_BASE_URL", "Address of Ollama; empty: 127.0.0.1:11434 is asked.", "")
    ollama_probe: bool = Field(default=True, description="Look for Ollama on this machine when nothing is configured.")
    gemini_api_key: SecretStr = _vendor("GEMINI_API_KEY", "Key of Google's Gemini.")
    google_cloud_project: str = _vendor(
        "GOOGLE_CLOUD_PROJECT", "Project whose Vertex AI is offered, with the credentials that the machine has.", ""
    )
    google_cloud_location: str = _vendor(
        "GOOGLE_CLOUD_LOCATION", "Location of Vertex AI, for example `global`; empty: not offered.", ""
    )
    bedrock_region: str = Field(
        default="", description="Region of Amazon Bedrock, for example us-east-1; empty: not offered."
    )
    bedrock_api_key: SecretStr = _vendor(
        "AWS_BEARER_TOKEN_BEDROCK", "API key of Bedrock; empty: the credentials of AWS that the machine has."
    )
    bedrock_base_url: str = Field(default="", description="Another endpoint of Bedrock, for example a private one.")
    groq_api_key: SecretStr = _vendor("GROQ_API_KEY", "Key of Groq.")
    together_api_key: SecretStr = _vendor("TOGETHER_API_KEY", "Key of Together.")
    deepseek_api_key: SecretStr = _vendor("DEEPSEEK_API_KEY", "Key of DeepSeek.")
    xai_api_key: SecretStr = _vendor("XAI_API_KEY", "Key of xAI.")
    openrouter_api_key: SecretStr = _vendor("OPENROUTER_API_KEY", "Key of OpenRouter.")
    mistral_api_key: SecretStr = _vendor("MISTRAL_API_KEY", "Key of Mistral.")
    vllm_base_url: str = _vendor("VLLM_BASE_URL", "Address of vLLM, with `/v1`.", "")
    lmstudio_base_url: str = _vendor("LMSTUDIO_BASE_URL", "Address of LM Studio, with `/v1`.", "")
    first_token_seconds: float = Field(default=120.0, gt=0, description="Longest wait for the first word of an answer.")
    between_tokens_seconds: float = Field(default=60.0, gt=0, description="Longest silence within an answer.")
    total_seconds: float = Field(
        default=600.0, gt=0, description="Longest time of an answer, from the first attempt to its last word."
    )
    attempts: int = Field(default=3, ge=1, le=10, description="How often a vendor is asked when it refuses for now.")
    retry_pause_seconds: float = Field(default=0.5, gt=0, description="Pause before the second attempt; then doubled.")
    retry_patience_seconds: float = Field(default=20.0, ge=0, description="Longest Retry-After that is waited for.")
    fallbacks: dict[str, list[str]] = Field(
        default={}, description="Handles to try when the vendor of one fails, JSON."
    )
    provider_slots: int = Field(default=0, ge=0, description="Most generations at once at a provider; 0: any number.")
    provider_slots_of: dict[str, int] = Field(
        default={}, description="Most generations at once at single providers of the deployment, by name, JSON."
    )
    organization_slots: int = Field(default=0, ge=0, description="Most generations at once of an organization.")
    embedding_cache_megabytes: float = Field(
        default=64.0, ge=0, description="Vectors remembered by their texts; one organization holds a quarter at most."
    )
    fragment_cache_megabytes: float = Field(
        default=64.0,
        ge=0,
        description="Messages remembered as vendors take them; a step writes only new ones.",
    )
    embedding_pause_seconds: float = Field(
        default=0.0, ge=0, description="Pause after each batch of texts whose vectors nobody waits for."
    )
    embedding_waiting_megabytes: float = Field(
        default=16.0, gt=0, description="Texts of one organization that may wait to be embedded; more are refused."
    )
    delta_window_ms: float = Field(default=15.0, ge=0, description="Streamed words are joined over this time.")
    heartbeat_seconds: float = Field(default=15.0, gt=0, description="Silence after which a stream says it is alive.")
    models_ttl_seconds: float = Field(
        default=300.0, gt=0, description="How long a vendor's list of models is believed."
    )
    prices: dict[str, Any] = Field(
        default={}, description="Prices of handles or patterns, dollars for a million tokens; null: unknown; JSON."
    )
    prices_file: Path | None = Field(default=None, description="A JSON file of prices, which `prices` win over.")
    budget_seconds: float = Field(
        default=5.0, gt=0, description="How often the books are read that budgets are checked by."
    )
    budget_dollars: float = Field(default=0.0, ge=0, description="What an organization may spend a month; 0: any sum.")
    provider_trace: bool = Field(default=False, description="Keep what goes to vendors and comes back, redacted.")
    provider_trace_share: float = Field(default=1.0, ge=0, le=1, description="Share of the steps whose trace is kept.")
    provider_trace_kilobytes: int = Field(
        default=256, ge=1, le=16384, description="Longest request and answer in a trace; longer ones are cut."
    )
    private_addresses: bool = Field(
        default=False, description="Organizations may name any address but metadata services; so may all in dev mode."
    )
    provider_allowed_hosts: tuple[str, ...] = Field(
        default=(), description="Names, addresses and networks that organizations may name though they are not public."
    )
    provider_trace_days: int = Field(default=7, ge=1, description="How long traces are kept.")
