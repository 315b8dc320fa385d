"""Web pages as text, and the search engine Exa, both through the guard."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from letta_common.egress import AddressGuard, TooMuchData, guarded_client
from letta_tools.domain.executions.web_calls import WebFailure, WebPage
from letta_tools.providers.error_groups import unwrapped
from letta_tools.providers.web_text import text_of_html

_REDIRECTS = 5
_REDIRECT_STATUSES = {301, 302, 303, 307, 308}
_AGENT = "letta-tools/1 (fetch_webpage)"


@dataclass(frozen=True, slots=True)
class WebOptions:
    """Limits of what is fetched, and the search engine's address."""

    seconds: float = 30.0
    most_bytes: int = 4 << 20
    exa_url: str = "https://api.exa.ai"


class GuardedWeb:
    """The web, as far as the guard lets it."""

    def __init__(self, guard: AddressGuard, options: WebOptions) -> None:
        self._guard = guard
        self._options = options

    async def fetch(self, url: str) -> WebPage:
        """Return a page; redirects are followed, each checked. Raises WebFailure, InvalidArgument."""
        try:
            return await self._fetch(url)
        except (httpx2.HTTPError, httpx2.InvalidURL, TooMuchData) as error:
            raise WebFailure(f"{url} cannot be fetched: {_why(error)}") from error

    async def search(self, key: str, query: str, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return what Exa found. Raises WebFailure."""
        # Exa gives 100 results at most.
        body = {"query": query, "numResults": min(max(options.get("num_results", 10), 1), 100), "type": "auto"}
        for name, wire in _EXA_NAMES.items():
            if name in options:
                body[wire] = options[name]
        body["contents"] = {"text": True} if options.get("include_text") else {"highlights": True, "summary": True}
        try:
            async with self._client({"x-api-key": key}) as client:
                answer = await client.post(f"{self._options.exa_url}/search", json=body)
            found = json.loads(answer.content) if answer.is_success else None
        except (httpx2.HTTPError, TooMuchData, ValueError) as error:
            raise WebFailure(f"the search engine cannot be reached: {_why(error)}") from error
        if not isinstance(found, dict) or not isinstance(found.get("results"), list):
            raise WebFailure(f"the search engine refuses: status {answer.status_code}")
        return [_result(item) for item in found["results"] if isinstance(item, dict)]

    async def _fetch(self, url: str) -> WebPage:
        async with self._client({"user-agent": _AGENT, "accept": "text/html, text/*, application/json"}) as client:
            for _ in range(_REDIRECTS + 1):
                # Each stop of a chain is checked: a public page may redirect to an inner address.
                target = await self._guard.check_url(url)
                async with client.stream("GET", target) as answer:
                    if answer.status_code in _REDIRECT_STATUSES and "location" in answer.headers:
                        url = str(target.join(answer.headers["location"]))
                        continue
                    if not answer.is_success:
                        raise WebFailure(f"{url} answers with status {answer.status_code}")
                    return await self._page(url, answer)
        raise WebFailure(f"{url} redirects too often")

    async def _page(self, url: str, answer: httpx2.Response) -> WebPage:
        kind = answer.headers.get("content-type", "text/html").partition(";")[0].strip().lower()
        if not kind.startswith("text/") and kind not in {
            "application/json",
            "application/xhtml+xml",
            "application/xml",
        }:
            raise WebFailure(f"{url} is no text but {kind}")
        content = (await answer.aread()).decode(_charset(answer), "replace")
        if kind in {"text/html", "application/xhtml+xml"}:
            # Reading some megabytes of HTML would hold up every other call.
            title, content = await asyncio.to_thread(text_of_html, content, url)
            return WebPage(url, title, content)
        return WebPage(url, "", content)

    def _client(self, headers: Mapping[str, str]) -> httpx2.AsyncClient:
        options = self._options
        return guarded_client(self._guard, timeout=options.seconds, most_bytes=options.most_bytes, headers=headers)


_EXA_NAMES = {
    "category": "category",
    "include_domains": "includeDomains",
    "exclude_domains": "excludeDomains",
    "start_published_date": "startPublishedDate",
    "end_published_date": "endPublishedDate",
    "user_location": "userLocation",
}


def _result(item: Mapping[str, Any]) -> dict[str, Any]:
    names = {"title": "title", "url": "url", "publishedDate": "published_date", "author": "author"}
    names |= {"text": "text", "highlights": "highlights", "summary": "summary"}
    return {ours: item[theirs] for theirs, ours in names.items() if item.get(theirs)}


def _charset(answer: httpx2.Response) -> str:
    name = answer.charset_encoding or "utf-8"
    try:
        "".encode(name)
    except LookupError:
        return "utf-8"
    return name


def _why(error: Exception) -> str:
    inner = unwrapped(error)
    return str(inner)[:200] or type(inner).__name__
