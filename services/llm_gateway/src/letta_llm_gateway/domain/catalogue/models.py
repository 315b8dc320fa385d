"""The catalogue of models: which there are, which handle means which account, which is the default and why."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Protocol

import structlog
from cachetools import LRUCache, TTLCache

from letta.llm.v1.model_pb2 import ProviderCategory
from letta.llm.v1.model_service_pb2 import GetDefaultModelResponse, ModelDefaults
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import AppError, ModelNotFound
from letta_llm_gateway.domain.catalogue.known_models import PREFERRED, UNLISTED, Known, dimensions, known, talks
from letta_llm_gateway.domain.catalogue.providers import Account, ListedModel, Provider

RULES_HANDLE = "builtin/rules"
LOCAL_EMBEDDER = "builtin/use-multilingual"
_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Model:
    """A language model of one account."""

    handle: str
    name: str
    account: Account
    facts: Known
    category: ProviderCategory.ValueType = ProviderCategory.PROVIDER_CATEGORY_BASE

    @property
    def is_language_model(self) -> bool:
        """Say whether answers are made by a model rather than by rules."""
        return self.account.provider_type != "builtin"


@dataclass(frozen=True, slots=True)
class AccountEmbedder:
    """An embedding model of one account."""

    handle: str
    name: str
    account: Account
    dimensions: int


@dataclass(frozen=True, slots=True)
class Route:
    """A model and the provider that speaks to it."""

    model: Model
    provider: Provider


@dataclass(frozen=True, slots=True)
class DefaultModelOptions:
    """What the operator says of defaults."""

    default_handle: str = ""
    default_embedding_handle: str = ""
    list_seconds: float = 300.0
    """How long a list of models is believed."""
    account_seconds: float = 30.0
    """How long an organization's accounts are believed; another replica may have changed them."""


class OwnAccounts(Protocol):
    """The accounts that organizations brought themselves."""

    async def of(self, actor: Actor) -> Sequence[Account]:
        """Return the accounts of the actor's organization, keys in clear."""
        ...

    async def defaults(self, actor: Actor) -> ModelDefaults:
        """Return the handles that the organization chose."""
        ...


class Makers(Protocol):
    """Makes providers; the same account always gets the same one."""

    async def provider(self, account: Account) -> Provider:
        """Return the provider of an account."""
        ...

    def trial(self, account: Account) -> AbstractAsyncContextManager[Provider]:
        """Make a provider for a moment."""
        ...


_log = structlog.get_logger("letta.llm.models")

Probe = Callable[[], Awaitable[Account | None]]
"""Looks for a model server on this machine."""


class Models:
    """Operations on the catalogue."""

    def __init__(
        self,
        base: Sequence[Account],
        own: OwnAccounts,
        makers: Makers,
        *,
        probe: Probe,
        clock: Clock,
        options: DefaultModelOptions,
    ) -> None:
        self._base = {account.name: account for account in base}
        self._own, self._makers, self._probe, self._clock, self._options = own, makers, probe, clock, options
        self._probed = False
        self._default: GetDefaultModelResponse | None = None
        self._lists: LRUCache[Account, tuple[float, list[ListedModel]]] = LRUCache(_MOST)  # old ones serve too
        self._listing: dict[Account, asyncio.Task[list[ListedModel]]] = {}
        believed = options.account_seconds
        self._accounts: TTLCache[str, tuple[dict[str, Account], ModelDefaults]] = TTLCache(_MOST, believed, self._now)
        self._routes: TTLCache[tuple[str, str], Route] = TTLCache(_MOST, believed, self._now)
        self._lock = asyncio.Lock()

    def forget(self, organization_id: str) -> None:
        """Read the organization's accounts again: one of them changed."""
        self._accounts.pop(organization_id, None)
        for key in [key for key in self._routes if key[0] == organization_id]:
            self._routes.pop(key, None)

    async def route(self, actor: Actor | None, handle: str) -> Route:
        """Return the model of a handle, or the default one, with its provider. Raises ModelNotFound."""
        key = (actor.organization_id if actor else "", handle)
        route = self._routes.get(key)
        if route is None:
            model = await self.get(actor, handle)
            route = self._routes[key] = Route(model, await self._makers.provider(model.account))
        return route

    async def get(self, actor: Actor | None, handle: str) -> Model:
        """Return the model of a handle, or the default one. Raises ModelNotFound, naming some that exist."""
        handle = handle or (await self.default(actor)).handle
        provider_name, _, name = handle.partition("/")
        accounts = await self._visible(actor)
        account = accounts.get(provider_name)
        if account is None or not name:
            raise await self._unknown(actor, handle)
        if account.provider_type == "builtin":
            if name not in {"rules", "echo"}:
                raise await self._unknown(actor, handle)
            return _model(account, ListedModel(name))
        listed = await self._listed(account)
        found = next((row for row in listed if row.name == name and not row.embedding), None)
        # Not every server has a list, so an empty one refuses nothing.
        if found is None and listed and not self._is_alias(name, listed):
            raise await self._unknown(actor, handle)
        return _model(account, found or ListedModel(name))

    async def languages(
        self,
        actor: Actor | None,
        *,
        categories: Sequence[ProviderCategory.ValueType] = (),
        provider: str = "",
        provider_type: str = "",
    ) -> list[Model]:
        """List the language models that the actor may use, by handle."""
        accounts = [
            account
            for account in (await self._visible(actor)).values()
            if (not categories or _category(account) in categories)
            and (not provider or account.name == provider)
            and (not provider_type or account.provider_type == provider_type)
        ]
        lists = await asyncio.gather(*map(self._listed, accounts))
        found = [
            _model(account, row)
            for account, rows in zip(accounts, lists, strict=True)
            for row in rows
            # `echo` is for benchmarks; OpenAI lists models of speech and pictures among the others.
            if not row.embedding and row.name != "echo" and (account.provider_type != "openai" or talks(row.name))
        ]
        return sorted(found, key=lambda model: model.handle)

    async def embedders(self, actor: Actor | None) -> list[AccountEmbedder]:
        """List the embedding models that the actor may use, by handle."""
        accounts = list((await self._visible(actor)).values())
        lists = await asyncio.gather(*map(self._listed, accounts))
        found = [
            AccountEmbedder(
                f"{account.name}/{row.name}", row.name, account, row.dimensions or dimensions(row.name) or 0
            )
            for account, rows in zip(accounts, lists, strict=True)
            for row in rows
            if row.embedding
        ]
        return sorted(found, key=lambda embedder: embedder.handle)

    async def embedder(self, actor: Actor | None, handle: str) -> AccountEmbedder:
        """Return the embedding model of a handle, or the default one. Raises ModelNotFound."""
        handle = handle or await self.embedding_handle(actor)
        provider_name, _, name = handle.partition("/")
        account = (await self._visible(actor)).get(provider_name)
        if account is None or not name:
            raise ModelNotFound(f"no provider offers the embedding model {handle}; try {LOCAL_EMBEDDER}", handle=handle)
        listed = await self._listed(account)
        # Ollama lists names with a tag that people leave out.
        found = next((row for row in listed if row.name.removesuffix(":latest") == name.removesuffix(":latest")), None)
        if (found is None and listed) or (found is not None and not found.embedding and not dimensions(name)):
            raise ModelNotFound(f"{account.name} offers no embedding model {name}; try {LOCAL_EMBEDDER}", handle=handle)
        size = (found.dimensions if found else None) or dimensions(name) or 0
        return AccountEmbedder(handle, name, account, size)

    async def embedding_provider(self, embedder: AccountEmbedder) -> Provider:
        """Return the provider of an embedding model."""
        return await self._makers.provider(embedder.account)

    @property
    def default_embedding_handle(self) -> str:
        """The handle of the deployment's default embedding model."""
        return self._options.default_embedding_handle or LOCAL_EMBEDDER

    async def embedding_handle(self, actor: Actor | None) -> str:
        """Return the handle of the default embedding model, the organization's first."""
        return (await self._chosen(actor)).embedding_handle or self.default_embedding_handle

    async def default(self, actor: Actor | None = None) -> GetDefaultModelResponse:
        """Return the default model: the organization's choice, else what is configured first, else rules."""
        if own := (await self._chosen(actor)).handle:
            return _default(own, "the organization chose it")
        if self._default is None:
            async with self._lock:
                self._default = self._default or await self._choose()
        return self._default

    async def trial(self, account: Account) -> list[ListedModel]:
        """List an account's models and keep nothing of it. Raises the vendor's refusal."""
        async with self._makers.trial(account) as provider:
            return await provider.models()

    async def refresh(self, account: Account) -> list[ListedModel]:
        """List an account's models at the vendor now. Raises the vendor's refusal."""
        provider = await self._makers.provider(account)
        rows = await provider.models()
        self._lists[account] = (self._now() + self._options.list_seconds, rows)
        return rows

    async def maker(self, account: Account) -> Provider:
        """Return the provider of an account. Raises InvalidArgument when there is no such type."""
        return await self._makers.provider(account)

    def base_names(self) -> frozenset[str]:
        """Return the names of the deployment's own providers."""
        return frozenset(self._base)

    async def _choose(self) -> GetDefaultModelResponse:
        if self._options.default_handle:
            return await self._named(self._options.default_handle)
        await self._find_local()
        for name, why in (
            ("openai", "OPENAI_API_KEY or OPENAI_BASE_URL is set"),
            ("anthropic", "ANTHROPIC_API_KEY is set"),
        ):
            if name in self._base:
                return await self._first_of(self._base[name], why)
        others = [account for account in self._base.values() if account.provider_type not in {"builtin", "ollama"}]
        for account in others:
            return await self._first_of(account, f"provider {account.name} is configured")
        if "ollama" in self._base:
            chosen = await self._first_of(self._base["ollama"], "Ollama answers on this machine")
            if chosen.handle != "ollama/":
                return chosen
        return _default(RULES_HANDLE, "no key is set and no Ollama answers at 127.0.0.1:11434")

    async def _named(self, handle: str) -> GetDefaultModelResponse:
        """Return the operator's choice, and say where a start is told of the default when there is no such model."""
        await self._find_local()
        default = _default(handle, "LETTA_DEFAULT_LLM_HANDLE names it")
        name, _, model = handle.partition("/")
        account = self._base.get(name)
        rows = await self._listed(account) if account else []
        listed = any(row.name == model for row in rows) or self._is_alias(model, rows)
        if account is not None and (listed or not rows):  # an account that lists nothing cannot be asked
            return default
        what = f"{name} lists no such model" if account else f"no provider is called {name}"
        fault = f"LETTA_DEFAULT_LLM_HANDLE={handle}: {what}, so that agents without a model of their own cannot answer."
        _log.warning("a default model cannot be had", message=fault)
        default.banner = fault
        return default

    async def _first_of(self, account: Account, why: str) -> GetDefaultModelResponse:
        rows = [row.name for row in await self._listed(account) if not row.embedding and talks(row.name)]
        wanted = PREFERRED.get(account.provider_type, ())
        matches = (name for prefix in wanted for name in sorted(rows, key=len) if name.startswith(prefix))
        name = next(matches, None) or next(iter(rows), None) or UNLISTED.get(account.provider_type, "")
        return _default(f"{account.name}/{name}", why if rows else f"{why}; its models could not be listed")

    async def _find_local(self) -> None:
        if not self._probed:
            # Before the wait, or each of the first requests would look.
            self._probed = True
            found = await self._probe()
            if found is not None:
                self._base.setdefault(found.name, found)

    async def _visible(self, actor: Actor | None) -> Mapping[str, Account]:
        await self._find_local()
        if actor is None:
            return self._base
        return (await self._of(actor))[0]

    async def _chosen(self, actor: Actor | None) -> ModelDefaults:
        return ModelDefaults() if actor is None else (await self._of(actor))[1]

    async def _of(self, actor: Actor) -> tuple[Mapping[str, Account], ModelDefaults]:
        """Return what the organization brought and chose; believed for a while."""
        held = self._accounts.get(actor.organization_id)
        if held is None:
            found, defaults = await asyncio.gather(self._own.of(actor), self._own.defaults(actor))
            # The deployment's names win, so that no organization's provider stands in for one of them.
            held = {**{account.name: account for account in found}, **self._base}, defaults
            self._accounts[actor.organization_id] = held
        return held

    async def _listed(self, account: Account) -> list[ListedModel]:
        """Return the account's models; while a stale list is made anew, the old one serves."""
        held = self._lists.get(account)
        if held is not None and held[0] > self._now():
            return held[1]
        task = self._listing.get(account)
        if task is None:
            task = self._listing[account] = asyncio.create_task(self._list(account))
            task.add_done_callback(lambda _: self._listing.pop(account, None))
        # Others wait for the same list when this caller leaves.
        return held[1] if held is not None else await asyncio.shield(task)

    async def _list(self, account: Account) -> list[ListedModel]:
        try:
            return await self.refresh(account)
        except AppError:  # a vendor that is down must not hide the others; what it had is kept
            kept = self._lists.get(account, (0.0, []))[1]
            # A vendor that was away is asked again soon, but not by every request.
            self._lists[account] = (self._now() + min(10.0, self._options.list_seconds), kept)
            return kept

    @staticmethod
    def _is_alias(name: str, listed: Sequence[ListedModel]) -> bool:
        """Say whether the name is short for one of the list, as `qwen` is for `qwen:latest`."""
        return any(row.name.startswith((f"{name}-20", f"{name}:latest")) for row in listed)

    async def _unknown(self, actor: Actor | None, handle: str) -> ModelNotFound:
        some = [model.handle for model in await self.languages(actor)]
        return ModelNotFound(
            f"Handle {handle} not found, must be one of {some[:50]}", handle=handle, some=", ".join(some[:20])
        )

    def _now(self) -> float:
        return self._clock.monotonic_ns() / 1e9


def _category(account: Account) -> ProviderCategory.ValueType:
    mine = account.organization_id
    return ProviderCategory.PROVIDER_CATEGORY_BYOK if mine else ProviderCategory.PROVIDER_CATEGORY_BASE


def _model(account: Account, row: ListedModel) -> Model:
    facts = known(account.provider_type, row.name)
    if row.context_window:
        facts = replace(facts, window=row.context_window, certain=True)
    return Model(f"{account.name}/{row.name}", row.name, account, facts, _category(account))


def _default(handle: str, reason: str) -> GetDefaultModelResponse:
    if handle.startswith("builtin/"):
        banner = (
            f"Model {handle}: NOT a language model, because {reason}.\n"
            "It remembers what you tell it and finds it again, by rules. For real conversations set OPENAI_API_KEY or "
            "ANTHROPIC_API_KEY, or start Ollama, and restart."
        )
    else:
        banner = f"Model {handle}, because {reason}."
    return GetDefaultModelResponse(handle=handle, reason=reason, banner=banner)
