"""What the gateway needs of a vendor."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from letta.llm.v1.generation_service_pb2 import Generation
from letta_llm_gateway.domain.answers import Call, Event


@dataclass(frozen=True, slots=True)
class Account:
    """An account at a vendor: all that is needed to make its provider."""

    name: str
    provider_type: str
    api_key: str = ""
    base_url: str = ""
    access_key: str = ""
    region: str = ""
    api_version: str = ""
    organization_id: str = ""

    def __repr__(self) -> str:
        return f"Account({self.name!r}, {self.provider_type!r}, {self.base_url!r})"


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model as the vendor lists it; what the vendor does not say is None."""

    name: str
    context_window: int | None = None
    embedding: bool = False
    dimensions: int | None = None


Vector = Sequence[float]


class Provider(Protocol):
    """A vendor of models. Every method raises the LLM errors of `letta_common.errors`, never the SDK's own."""

    async def generate(self, call: Call) -> Generation:
        """Answer once."""
        ...

    def stream(self, call: Call) -> AsyncGenerator[Event, None]:
        """Answer as the model speaks. Closing the generator ends the call at the vendor."""
        ...

    async def embed(self, model: str, texts: Sequence[str]) -> list[Vector]:
        """Turn texts into vectors. Raises CapabilityMissing when the vendor has no embedder."""
        ...

    async def count(self, call: Call) -> int | None:
        """Return the tokens of a prompt as the vendor counts them, or None when it does not count."""
        ...

    async def models(self) -> list[ListedModel]:
        """List what the vendor offers to this account."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...
