"""Key pairs of Ed25519, their private halves sealed with AES-256-GCM under the cluster secret."""

from __future__ import annotations

import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE = 12


class SecretVault:
    """Seals with a key derived from the cluster secret; the id of a key is bound into its seal."""

    def __init__(self, cluster_secret: bytes) -> None:
        self._cipher = AESGCM(hmac.digest(cluster_secret, b"letta.auth.signing-keys", "sha256"))

    def new_pair(self, key_id: str) -> tuple[bytes, bytes]:
        """Return a raw public key and the sealed private one."""
        key = Ed25519PrivateKey.generate()
        nonce = os.urandom(_NONCE)
        sealed = nonce + self._cipher.encrypt(nonce, key.private_bytes_raw(), key_id.encode())
        return key.public_key().public_bytes_raw(), sealed

    def unseal(self, key_id: str, sealed: bytes) -> bytes | None:
        """Return the raw private key, or None when it was sealed with another secret or for another id."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], key_id.encode())
        except InvalidTag:
            return None
