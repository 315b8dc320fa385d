"""What the rules need from storage as a whole."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from letta_auth.domain.api_keys import APIKeyStore
from letta_auth.domain.audit import AuditStore
from letta_auth.domain.organizations import OrganizationStore
from letta_auth.domain.signing_keys import SigningKeyStore
from letta_auth.domain.users import UserStore


class Transaction(Protocol):
    """The stores, inside of one transaction."""

    @property
    def organizations(self) -> OrganizationStore:
        """Where organizations are kept."""
        ...

    @property
    def users(self) -> UserStore:
        """Where users are kept."""
        ...

    @property
    def api_keys(self) -> APIKeyStore:
        """Where API keys are kept."""
        ...

    @property
    def signing_keys(self) -> SigningKeyStore:
        """Where signing keys are kept."""
        ...

    @property
    def audit(self) -> AuditStore:
        """Where changes are recorded."""
        ...


class AuthDatabase(Protocol):
    """Everything that auth keeps."""

    def begin(self) -> AbstractAsyncContextManager[Transaction]:
        """Run a block as one transaction."""
        ...

    def read(self) -> AbstractAsyncContextManager[Transaction]:
        """Run a block of single reads."""
        ...
