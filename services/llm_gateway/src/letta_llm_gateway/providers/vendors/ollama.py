"""Ollama, through the chat completions that it speaks beside its own wire."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlsplit

import httpx2

from letta_llm_gateway.domain.catalogue.providers import Account
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.providers.vendors.chat import ChatProvider

DEFAULT = "http://127.0.0.1:11434/v1"


def make(account: Account, http: httpx2.AsyncClient, fragments: Fragments) -> ChatProvider:
    """Make the provider of an account; an address without a path gets `/v1`."""
    address = account.base_url or DEFAULT
    # Ollama's address is usually given without a path, which is where its own wire begins.
    if urlsplit(address).path in {"", "/"}:
        address = address.rstrip("/") + "/v1"
    return ChatProvider(replace(account, base_url=address), http, fragments)
