"""Providers that organizations bring themselves: an account at a vendor, its keys sealed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from letta.llm.v1 import provider_pb2
from letta.llm.v1.model_pb2 import PROVIDER_CATEGORY_BYOK
from letta.llm.v1.model_service_pb2 import ModelDefaults
from letta.llm.v1.provider_service_pb2 import ListProvidersRequest
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
from letta_common.values.times import stamp_of
from letta_llm_gateway.domain.catalogue.models import Models
from letta_llm_gateway.domain.catalogue.providers import Account

TABLE = "llm.providers"
SECRETS = ("api_key", "access_key")
ADDRESSES = ("base_url", "region", "api_version")


class OwnProvider(NamedTuple):
    """A provider of an organization as it is stored: what may be shown of it, and its keys, sealed, by their names."""

    shown: provider_pb2.Provider
    keys: Mapping[str, bytes]


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

    async def list_providers(self, actor: Actor, page: Page, wanted: ListProvidersRequest) -> Sequence[OwnProvider]:
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

    async def create(self, actor: Actor, account: Account, models: Models) -> provider_pb2.Provider:
        """Store a new provider and list its models.

        Raises:
            ProviderNameTaken: the organization or the deployment has one of that name.
            InvalidArgument: there is no such type of provider, or it may not be called at this address.
        """
        if account.name in models.base_names():
            raise taken(account.name)
        await self._check(account)
        shown = provider_pb2.Provider(
            id=new_id("provider"),
            name=account.name,
            provider_type=account.provider_type,
            provider_category=PROVIDER_CATEGORY_BYOK,
            base_url=account.base_url or None,
            region=account.region or None,
            api_version=account.api_version or None,
            organization_id=actor.organization_id,
            updated_at=stamp_of(self._clock.now()),
        )
        provider = OwnProvider(shown, self._sealed(shown, {key: getattr(account, key) for key in SECRETS}))
        await models.maker(account)
        await self._store.create(actor, provider)
        models.forget(actor.organization_id)
        return (await self._synced(actor, provider, models)).shown

    async def update(
        self, actor: Actor, provider_id: str, changes: Mapping[str, str | None], models: Models
    ) -> provider_pb2.Provider:
        """Change keys and addresses; None clears.

        Raises:
            ProviderNotFound: the organization has no such provider.
            InvalidArgument: the provider may not be called at this address.
            SecretRequired: a key that is kept would go to another address than the one it was given for.
        """
        provider = await self._store.get(actor, provider_id)
        kept = {key: provider.keys[key] for key in SECRETS if key in provider.keys and key not in changes}
        given = {key: changes[key] for key in SECRETS if key in changes}
        addresses = {key: changes[key] or None for key in ADDRESSES if key in changes}
        shown = _changed(provider.shown, updated_at=stamp_of(self._clock.now()), **addresses)
        _require_secrets(provider.shown, shown, list(kept))
        changed = OwnProvider(shown, {**kept, **self._sealed(shown, given)})
        await self._check(self.account(changed))
        await self._store.update(actor, changed)
        models.forget(actor.organization_id)
        return shown

    async def delete(self, actor: Actor, provider_id: str, models: Models) -> None:
        """Delete a provider. Raises ProviderNotFound."""
        await self._store.delete(actor, provider_id)
        models.forget(actor.organization_id)

    async def check(self, account: Account, models: Models) -> int:
        """Try credentials by listing models, and return how many there are. Raises the vendor's refusal."""
        await self._check(account)
        return len(await models.trial(account))

    async def refresh(self, actor: Actor, provider_id: str, models: Models) -> provider_pb2.Provider:
        """List a provider's models again. Raises ProviderNotFound or the vendor's refusal."""
        provider = await self._store.get(actor, provider_id)
        await models.refresh(self.account(provider))
        synced = await self._listed_now(actor, provider)
        models.forget(actor.organization_id)
        return synced.shown

    def account(self, provider: OwnProvider) -> Account:
        """Return what is needed to call the vendor, keys in clear."""
        shown = provider.shown
        return Account(
            name=shown.name,
            provider_type=shown.provider_type,
            api_key=self._opened(provider, "api_key"),
            base_url=shown.base_url,
            access_key=self._opened(provider, "access_key"),
            region=shown.region,
            api_version=shown.api_version,
            organization_id=shown.organization_id,
        )

    async def _synced(self, actor: Actor, provider: OwnProvider, models: Models) -> OwnProvider:
        try:
            await models.refresh(self.account(provider))
        except AppError:  # a vendor that is away, or a wrong key, is found by the check
            return provider
        return await self._listed_now(actor, provider)

    async def _listed_now(self, actor: Actor, provider: OwnProvider) -> OwnProvider:
        shown = _changed(provider.shown, last_synced=stamp_of(self._clock.now()))
        synced = OwnProvider(shown, provider.keys)
        await self._store.update(actor, synced)
        return synced

    async def _check(self, account: Account) -> None:
        if account.base_url:
            await self._allowed(account.base_url)

    def _sealed(self, shown: provider_pb2.Provider, secrets: Mapping[str, str | None]) -> dict[str, bytes]:
        """Seal the secrets that are there."""
        given = ((key, secret.encode()) for key, secret in secrets.items() if secret)
        return {key: self._sealer.seal(_place(shown, key), secret) for key, secret in given}

    def _opened(self, provider: OwnProvider, key: str) -> str:
        sealed = provider.keys.get(key)
        return self._sealer.open(_place(provider.shown, key), sealed).decode() if sealed else ""


def _place(shown: provider_pb2.Provider, key: str) -> SealedAt:
    return SealedAt(f"{TABLE}.{key}", shown.organization_id, shown.id)


def _changed(shown: provider_pb2.Provider, **values: Any) -> provider_pb2.Provider:
    """Return a copy with other values; None clears."""
    kept = {field.name: value for field, value in shown.ListFields()}
    return provider_pb2.Provider(**{**kept, **values})


def _require_secrets(before: provider_pb2.Provider, after: provider_pb2.Provider, kept: Sequence[str]) -> None:
    """Refuse a change of address that would take keys along. Raises SecretRequired."""
    if kept and _where(before) != _where(after):
        raise SecretRequired(
            f"the provider would be called at another address than its keys were given for: send {' and '.join(kept)} "
            "with the change, or null to remove it",
            field=f"provider.{kept[0]}",
        )


def _where(shown: provider_pb2.Provider) -> str:
    """Return where the keys of a provider are sent: an origin, or the vendor's own servers in a region."""
    return origin_of(shown.base_url) if shown.base_url else f"{shown.provider_type} {shown.region}"


def missing(provider_id: str) -> ProviderNotFound:
    """Return the error for a provider that the organization does not have."""
    return ProviderNotFound(f"Provider {provider_id} not found", provider_id=provider_id)


def taken(name: str) -> ProviderNameTaken:
    """Return the error for a name that is in use."""
    return ProviderNameTaken(f"a provider named {name} exists; choose another name", name=name)
