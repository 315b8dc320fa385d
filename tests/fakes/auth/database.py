"""The in-memory twin of the SQL stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from letta.auth.v1.api_key_pb2 import APIKey
from letta.auth.v1.credential_service_pb2 import SigningKey
from letta.auth.v1.organization_pb2 import Organization
from letta.auth.v1.user_pb2 import User
from letta_auth.domain import api_keys, organizations, users
from letta_auth.domain.api_keys import KeptKey
from letta_auth.domain.audit import AuditEntry, link
from letta_auth.domain.scopes import ADMIN
from letta_auth.domain.signing_keys import KeyPair
from letta_common.values.paging import Page
from letta_common.values.times import time_of
from letta_rpc.verdicts import words_of


@dataclass(slots=True)
class _Tables:
    organizations: dict[str, Organization] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    users: dict[str, User] = field(default_factory=dict)
    keys: dict[str, KeptKey] = field(default_factory=dict)
    revoked: dict[str, datetime] = field(default_factory=dict)
    signing_keys: dict[str, tuple[KeyPair, datetime | None]] = field(default_factory=dict)
    audit: dict[str, list[tuple[AuditEntry, bytes]]] = field(default_factory=dict)


class _Dated(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def created_at(self) -> Timestamp: ...


_Item = TypeVar("_Item", bound=_Dated)


def _paged(page: Page, items: Iterable[_Item], keep: Callable[[_Item], bool]) -> list[_Item]:
    return page.slice(deepcopy([*filter(keep, items)]), key=lambda item: (time_of(item.created_at), item.id))


class FakeOrganizationStore:
    """Keeps organizations in memory."""

    def __init__(self, tables: _Tables) -> None:
        self._rows = tables.organizations
        self._removed = tables.removed

    async def create(self, organization: Organization) -> None:
        self._rows[organization.id] = organization

    async def ensure(self, organization: Organization) -> None:
        self._rows.setdefault(organization.id, organization)
        self._removed.discard(organization.id)

    async def get(self, organization_id: str) -> Organization:
        found = self._rows.get(organization_id)
        if found is None or organization_id in self._removed:
            raise organizations.missing(organization_id)
        return deepcopy(found)

    async def hold(self, organization_id: str) -> Organization:
        return await self.get(organization_id)  # one transaction at a time

    async def list_organizations(self, page: Page) -> Sequence[Organization]:
        return _paged(page, self._rows.values(), lambda row: row.id not in self._removed)

    async def update(self, organization: Organization) -> None:
        await self.get(organization.id)
        self._rows[organization.id] = organization

    async def delete(self, organization_id: str, at: datetime) -> None:
        (await self.get(organization_id)).updated_at.FromDatetime(at)
        self._removed.add(organization_id)


class FakeUserStore:
    """Keeps users in memory."""

    def __init__(self, tables: _Tables) -> None:
        self._rows = tables.users
        self._removed = tables.removed

    async def create(self, user: User) -> None:
        self._rows[user.id] = user

    async def ensure(self, user: User) -> None:
        self._rows.setdefault(user.id, user).is_deleted = False

    async def get(self, user_id: str) -> User:
        found = self._rows.get(user_id)
        if found is None or not self.is_live(found):
            raise users.missing(user_id)
        return deepcopy(found)

    async def list_users(self, page: Page, organization_id: str = "") -> Sequence[User]:
        return _paged(
            page,
            self._rows.values(),
            lambda row: self.is_live(row) and organization_id in {"", row.organization_id},
        )

    async def update(self, user: User) -> None:
        await self.get(user.id)
        self._rows[user.id] = user

    def is_live(self, user: User) -> bool:
        """Say whether neither the user nor its organization was removed."""
        return not user.is_deleted and user.organization_id not in self._removed


class FakeAPIKeyStore:
    """Keeps keys in memory."""

    def __init__(self, tables: _Tables, owners: FakeUserStore) -> None:
        self._rows = tables.keys
        self._revoked = tables.revoked
        self._users = tables.users
        self._owners = owners

    async def create(self, kept: KeptKey) -> None:
        self._rows[kept.key.id] = kept

    async def get(self, key_id: str, organization_id: str = "") -> APIKey:
        found = self._rows.get(key_id)
        if found is None or not self._is_mine(found.key, organization_id):
            raise api_keys.missing(key_id)
        return found.key

    async def find_usable(self, key_id: str) -> KeptKey | None:
        found = self._rows.get(key_id)
        usable = (
            found is not None and self._is_mine(found.key, "") and self._owners.is_live(self._users[found.key.user_id])
        )
        return found if usable else None

    async def list_keys(self, page: Page, organization_id: str = "", user_id: str = "") -> Sequence[APIKey]:
        return _paged(
            page,
            [kept.key for kept in self._rows.values()],
            lambda row: self._is_mine(row, organization_id) and user_id in {"", row.user_id},
        )

    async def revoke(self, key_id: str, at: datetime) -> None:
        self._revoked.setdefault(key_id, at)

    async def touch(self, key_id: str, at: datetime) -> None:
        self._rows[key_id].key.last_used_at.FromDatetime(at)

    async def has_admin(self) -> bool:
        return any(
            ADMIN in words_of(kept.key.scopes) and not kept.development and id_ not in self._revoked
            for id_, kept in self._rows.items()
        )

    def _is_mine(self, key: APIKey, organization_id: str) -> bool:
        return key.id not in self._revoked and organization_id in {"", key.organization_id}


class FakeSigningKeyStore:
    """Keeps signing keys in memory."""

    def __init__(self, tables: _Tables) -> None:
        self._rows = tables.signing_keys

    async def create(self, pair: KeyPair) -> None:
        self._rows[pair.key.id] = (pair, None)

    async def retire(self, older_than: datetime, at: datetime) -> None:
        for id_, (pair, retired_at) in self._rows.items():
            if retired_at is None and time_of(pair.key.created_at) <= older_than:
                self._rows[id_] = (pair, at)

    async def list_active(self) -> Sequence[KeyPair]:
        return self._newest_first(lambda retired_at: retired_at is None)

    async def list_since(self, retired_since: datetime) -> Sequence[SigningKey]:
        kept = self._newest_first(lambda retired_at: retired_at is None or retired_at > retired_since)
        return [pair.key for pair in kept]

    def _newest_first(self, keep: Callable[[datetime | None], bool]) -> list[KeyPair]:
        kept = [pair for pair, retired_at in self._rows.values() if keep(retired_at)]
        return sorted(kept, key=lambda pair: (time_of(pair.key.created_at), pair.key.id), reverse=True)


class FakeAuditStore:
    """Keeps the audit log in memory."""

    def __init__(self, tables: _Tables) -> None:
        self._rows = tables.audit

    async def append(self, entry: AuditEntry) -> None:
        chain = self._rows.setdefault(entry.organization_id, [])
        chain.append((entry, link(chain[-1][1] if chain else b"", entry)))

    async def list_entries(self, organization_id: str) -> list[tuple[AuditEntry, bytes]]:
        return list(self._rows.get(organization_id, []))


class FakeTransaction:
    """The fake stores on one state."""

    def __init__(self, tables: _Tables) -> None:
        self.organizations = FakeOrganizationStore(tables)
        self.users = FakeUserStore(tables)
        self.api_keys = FakeAPIKeyStore(tables, self.users)
        self.signing_keys = FakeSigningKeyStore(tables)
        self.audit = FakeAuditStore(tables)


class FakeAuthDatabase:
    """Everything that auth keeps, in memory; a transaction that raises changes nothing."""

    def __init__(self) -> None:
        self._tables = _Tables()
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[FakeTransaction]:
        """Run a block as one transaction."""
        async with self._lock:
            tables = deepcopy(self._tables)
            yield FakeTransaction(tables)
            self._tables = tables

    @asynccontextmanager
    async def read(self) -> AsyncIterator[FakeTransaction]:
        """Run a block of single reads; what it writes is lost."""
        yield FakeTransaction(deepcopy(self._tables))
