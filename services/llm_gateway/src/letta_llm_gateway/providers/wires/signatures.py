"""Signatures of reasoning carry their vendor, so that an agent may change models: no vendor reads another's."""

from __future__ import annotations

import re

# Anthropic's are base64, which has no colon.
_TAGGED = re.compile(r"[a-z_]+:")


def sealed(vendor: str, signature: str) -> str:
    """Return a signature with its vendor."""
    return f"{vendor}:{signature}"


def opened(vendor: str, signature: str) -> str | None:
    """Return a signature as the vendor gave it; None when it is not the vendor's."""
    return signature.removeprefix(f"{vendor}:") if signature.startswith(f"{vendor}:") else None


def foreign(signature: str) -> bool:
    """Say whether a signature is not Anthropic's, whose signatures are kept bare."""
    return _TAGGED.match(signature) is not None
