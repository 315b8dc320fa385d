"""Providers that organizations bring themselves: an account at a vendor, its keys sealed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from letta.llm.v1.model_service_pb2 import ModelDefaults
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.egress import origin_of
from letta_common.errors import (
    AppError,
    ProviderNameTaken,
    ProviderNotFound,
    SecretRequired,
)
from letta_common.sealing import SealedAt, Sealer
from letta_common.values.ids import new_id
from letta_common.values.paging import Page
from letta_llm_gateway.domain.catalogue.models import Models
from letta_llm_gateway.domain.catalogue.providers import Account

TABLE = "llm.providers"
SECRETS = ("api_key", "access_key")
ADDRESSES = ("base_url", "region", "api_version")


@dataclass(frozen=True, slots=True)
class OwnProvider:
    """A provider of an organization as it is stored."""

    id: str
    organization_id: str
    name: str
    provider_type: str
    base_url: str | None
    region: str | None
    api_version: str | None
    api_key: bytes | None
    access_key: bytes | None
    created_at: datetime
    updated_at: datetime
    last_synced: datetime | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which providers a list shows."""

    name: str = ""
    provider_type: str = ""


class ProviderStore(Protocol):
    """Where providers are kept. Every call sees only the actor's organization."""

    async def create(self, actor: Actor, provider: OwnProvider) -> None:
        """Store a new provider. Raises ProviderNameTaken."""
        ...

    async def get(self, actor: Actor, provider_id: str) -> OwnProvider:
        """Return one provider. Raises ProviderNotFound."""
        ...

    async def list_all(self, actor: Actor) -> Sequence[OwnProvider]:
        """Return every provider of the organization."""
        ...

    async def list_providers(self, actor: Actor, page: Page, wanted: Filter) -> Sequence[OwnProvider]:
        """Return one page. Raises CursorNotFound."""
        ...

    async def update(self, actor: Actor, provider: OwnProvider) -> None:
        """Write a provider that exists. Raises ProviderNotFound."""
        ...

    async def delete(self, actor: Actor, provider_id: str) -> None:
        """Delete a provider. Raises ProviderNotFound."""
        ...

    async def get_defaults(self, actor: Actor) -> ModelDefaults:
        """Return the handles that the organization chose."""
        ...

    async def put_defaults(self, actor: Actor, chosen: ModelDefaults, at: datetime) -> None:
        """Store the handles that the organization chose."""
        ...


AddressCheck = Callable[[str], Awaitable[object]]
"""Raises InvalidArgument for an address that an organization may not make the gateway call."""


class Accounts:
    """Operations on the providers of organizations."""

    def __init__(self, store: ProviderStore, sealer: Sealer, allowed: AddressCheck, clock: Clock) -> None:
        self._store, self._sealer, self._allowed, self._clock = store, sealer, allowed, clock

    async def of(self, actor: Actor) -> Sequence[Account]:
        """Return the accounts of the actor's organization, keys in clear."""
        return [self.account(provider) for provider in await self._store.list_all(actor)]

    async def defaults(self, actor: Actor) -> ModelDefaults:
        """Return the handles that the organization chose."""
        return await self._store.get_defaults(actor)

    async def set_defaults(self, actor: Actor, defaults: ModelDefaults, models: Models) -> ModelDefaults:
        """Choose handles for where none is named. Raises ModelNotFound for one that nobody offers."""
        if defaults.handle:
            await models.get(actor, defaults.handle)
        if defaults.embedding_handle:
            await models.embedder(actor, defaults.embedding_handle)
        await self._store.put_defaults(actor, defaults, self._clock.now())
        models.forget(actor.organization_id)
        return defaults

    async def create(self, actor: Actor, account: Account, models: Models) -> OwnProvider:
        """Store a new provider and list its models.

        Raises:
            ProviderNameTaken: the organization or the deployment has one of that name.
            InvalidArgument: there is no such type of provider, or it may not be called at this address.
        """
        if account.name in models.base_names():
            raise taken(account.name)
        await self._check(account)
        now = self._clock.now()
        id_ = new_id("provider")
        provider = OwnProvider(
            id=id_,
            organization_id=actor.organization_id,
            name=account.name,
            provider_type=account.provider_type,
            base_url=account.base_url or None,
            region=account.region or None,
            api_version=account.api_version or None,
            api_key=self._sealed(actor, id_, "api_key", account.api_key),
            access_key=self._sealed(actor, id_, "access_key", account.access_key),
            created_at=now,
            updated_at=now,
        )
        await models.maker(account)
        await self._store.create(actor, provider)
        models.forget(actor.organization_id)
        return await self._synced(actor, provider, models)

    async def update(
        self, actor: Actor, provider_id: str, changes: Mapping[str, str | None], models: Models
    ) -> OwnProvider:
        """Change keys and addresses; None clears.

        Raises:
            ProviderNotFound: the organization has no such provider.
            InvalidArgument: the provider may not be called at this address.
            SecretRequired: a key that is kept would go to another address than the one it was given for.
        """
        provider = await self._store.get(actor, provider_id)
        plain = {key: changes[key] or None for key in ADDRESSES if key in changes}
        sealed = {key: self._sealed(actor, provider.id, key, changes[key]) for key in SECRETS if key in changes}
        changed = replace(provider, **plain, **sealed, updated_at=self._clock.now())  # type: ignore[arg-type]
        _require_secrets(provider, changed, given=sealed)
        await self._check(self.account(changed))
        await self._store.update(actor, changed)
        models.forget(actor.organization_id)
        return changed

    async def delete(self, actor: Actor, provider_id: str, models: Models) -> None:
        """Delete a provider. Raises ProviderNotFound."""
        await self._store.delete(actor, provider_id)
        models.forget(actor.organization_id)

    async def check(self, account: Account, models: Models) -> int:
        """Try credentials by listing models, and return how many there are. Raises the vendor's refusal."""
        await self._check(account)
        return len(await models.trial(account))

    async def refresh(self, actor: Actor, provider_id: str, models: Models) -> OwnProvider:
        """List a provider's models again. Raises ProviderNotFound or the vendor's refusal."""
        provider = await self._store.get(actor, provider_id)
        await models.refresh(self.account(provider))
        synced = replace(provider, last_synced=self._clock.now())
        await self._store.update(actor, synced)
        models.forget(actor.organization_id)
        return synced

    def account(self, provider: OwnProvider) -> Account:
        """Return what is needed to call the vendor, keys in clear."""
        return Account(
            name=provider.name,
            provider_type=provider.provider_type,
            api_key=self._opened(provider, "api_key", provider.api_key),
            base_url=provider.base_url or "",
            access_key=self._opened(provider, "access_key", provider.access_key),
            region=provider.region or "",
            api_version=provider.api_version or "",
            organization_id=provider.organization_id,
        )

    async def _synced(self, actor: Actor, provider: OwnProvider, models: Models) -> OwnProvider:
        try:
            await models.refresh(self.account(provider))
        except AppError:  # a vendor that is away, or a wrong key, is found by the check
            return provider
        synced = replace(provider, last_synced=self._clock.now())
        await self._store.update(actor, synced)
        return synced

    async def _check(self, account: Account) -> None:
        if account.base_url:
            await self._allowed(account.base_url)

    def _sealed(self, actor: Actor, provider_id: str, field: str, secret: str | None) -> bytes | None:
        place = SealedAt(f"{TABLE}.{field}", actor.organization_id, provider_id)
        return self._sealer.seal(place, secret.encode()) if secret else None

    def _opened(self, provider: OwnProvider, field: str, sealed: bytes | None) -> str:
        place = SealedAt(f"{TABLE}.{field}", provider.organization_id, provider.id)
        return self._sealer.open(place, sealed).decode() if sealed else ""


def _require_secrets(before: OwnProvider, after: OwnProvider, given: Container[str]) -> None:
    """Refuse a change of address that would take keys along. Raises SecretRequired."""
    kept = [key for key in SECRETS if getattr(before, key) and key not in given]
    if kept and _place(before) != _place(after):
        raise SecretRequired(
            f"the provider would be called at another address than its keys were given for: send {' and '.join(kept)} "
            "with the change, or null to remove it",
            field=f"provider.{kept[0]}",
        )


def _place(provider: OwnProvider) -> str:
    """Return where the keys of a provider are sent: an origin, or the vendor's own servers in a region."""
    return origin_of(provider.base_url) if provider.base_url else f"{provider.provider_type} {provider.region or ''}"


def missing(provider_id: str) -> ProviderNotFound:
    """Return the error for a provider that the organization does not have."""
    return ProviderNotFound(f"Provider {provider_id} not found", provider_id=provider_id)


def taken(name: str) -> ProviderNameTaken:
    """Return the error for a name that is in use."""
    return ProviderNameTaken(f"a provider named {name} exists; choose another name", name=name)
