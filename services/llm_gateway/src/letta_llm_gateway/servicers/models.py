"""ModelService over the domain."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from letta.llm.v1 import model_pb2 as models_pb
from letta.llm.v1 import model_service_pb2 as pb
from letta.llm.v1 import model_service_pb2_grpc
from letta_common.actor import current_actor, current_request
from letta_llm_gateway.domain.catalogue.accounts import Accounts
from letta_llm_gateway.domain.catalogue.models import AccountEmbedder, Model, Models
from letta_llm_gateway.domain.catalogue.prices import Prices, told

_Context = grpc.aio.ServicerContext[Any, Any]
_WIRES = frozenset({"openai", "anthropic", "ollama", "builtin"})


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, models: Models, accounts: Accounts, prices: Prices) -> None:
        self._models, self._accounts, self._prices = models, accounts, prices

    async def ListModels(self, request: pb.ListModelsRequest, context: _Context) -> pb.ListModelsResponse:
        found = await self._models.languages(
            current_actor(),
            categories=list(filter(None, request.provider_category)),
            provider=request.provider_name,
            provider_type=request.provider_type,
        )
        # The first search for the price of each of a thousand models would hold up every other call.
        return pb.ListModelsResponse(models=await asyncio.to_thread(lambda: list(map(self._model, found))))

    async def ListEmbeddingModels(
        self, request: pb.ListEmbeddingModelsRequest, context: _Context
    ) -> pb.ListEmbeddingModelsResponse:
        found = await self._models.embedders(current_actor())
        return pb.ListEmbeddingModelsResponse(models=[_embedder(embedder) for embedder in found])

    async def GetModel(self, request: pb.GetModelRequest, context: _Context) -> pb.GetModelResponse:
        return pb.GetModelResponse(model=self._model(await self._models.get(current_request().actor, request.handle)))

    async def GetEmbeddingModel(
        self, request: pb.GetEmbeddingModelRequest, context: _Context
    ) -> pb.GetEmbeddingModelResponse:
        found = await self._models.embedder(current_request().actor, request.handle)
        return pb.GetEmbeddingModelResponse(model=_embedder(found))

    async def GetDefaultModel(
        self, request: pb.GetDefaultModelRequest, context: _Context
    ) -> pb.GetDefaultModelResponse:
        actor = current_request().actor
        answer = pb.GetDefaultModelResponse()
        answer.CopyFrom(await self._models.default(actor))
        answer.embedding_handle = await self._models.embedding_handle(actor)
        answer.language_model = not answer.handle.startswith("builtin/")
        return answer

    async def GetModelDefaults(
        self, request: pb.GetModelDefaultsRequest, context: _Context
    ) -> pb.GetModelDefaultsResponse:
        return pb.GetModelDefaultsResponse(defaults=await self._accounts.defaults(current_actor()))

    async def SetModelDefaults(
        self, request: pb.SetModelDefaultsRequest, context: _Context
    ) -> pb.SetModelDefaultsResponse:
        chosen = await self._accounts.set_defaults(current_actor(), request.defaults, self._models)
        return pb.SetModelDefaultsResponse(defaults=chosen)

    def _model(self, model: Model) -> models_pb.Model:
        packed = _model(model)
        price = self._prices.of(model.handle, model.account.provider_type, model.name)
        if price is not None:
            packed.prices.CopyFrom(told(price))
        return packed


def _wire(provider_type: str) -> str:
    return provider_type if provider_type in _WIRES else "openai"


def _model(model: Model) -> models_pb.Model:
    facts = model.facts
    return models_pb.Model(
        handle=model.handle,
        name=model.name,
        display_name=model.name,
        provider_type=model.account.provider_type,
        provider_name=model.account.name,
        model=model.name,
        model_endpoint_type=_wire(model.account.provider_type),
        model_endpoint=model.account.base_url or None,
        provider_category=model.category,
        context_window=facts.window,
        temperature=1.0,
        max_tokens=facts.max_output,
        max_output_tokens=facts.max_output,
        enable_reasoner=facts.reasoning,
        max_context_window=facts.window,
        capabilities=models_pb.ModelCapabilities(
            tools=facts.tools,
            images=facts.images is not False and model.is_language_model,
            reasoning=facts.reasoning,
            streaming=True,
            language_model=model.is_language_model,
        ),
    )


def _embedder(embedder: AccountEmbedder) -> models_pb.EmbeddingModel:
    return models_pb.EmbeddingModel(
        handle=embedder.handle,
        name=embedder.name,
        display_name=embedder.name,
        provider_type=embedder.account.provider_type,
        provider_name=embedder.account.name,
        embedding_endpoint_type=_wire(embedder.account.provider_type),
        embedding_endpoint=embedder.account.base_url or None,
        embedding_model=embedder.name,
        embedding_dim=embedder.dimensions,
        embedding_chunk_size=300,
        batch_size=32,
    )
