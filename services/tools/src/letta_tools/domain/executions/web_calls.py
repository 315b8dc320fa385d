"""The built-in web tools: a search, and the text of a page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from letta_common.actor import Actor
from letta_common.errors import InvalidArgument
from letta_sandbox.calls import CallEnding, Isolation, Result, ToolFailure
from letta_tools.domain.executions.executions import Work, refused
from letta_tools.domain.executions.surroundings import Environment

PROVIDER = "web"
KEY_VARIABLE = "EXA_API_KEY"
_SEARCH_ARGUMENTS = {
    "num_results": int,
    "category": str,
    "include_text": bool,
    "include_domains": list,
    "exclude_domains": list,
    "start_published_date": str,
    "end_published_date": str,
    "user_location": str,
}


class WebFailure(Exception):
    """The page or the search engine cannot be reached, or answers something else."""


@dataclass(frozen=True, slots=True)
class WebPage:
    """A page as text."""

    url: str
    title: str
    text: str


class Web(Protocol):
    """The way to the web."""

    async def fetch(self, url: str) -> WebPage:
        """Return a page. Raises WebFailure, InvalidArgument for an address that may not be fetched."""
        ...

    async def search(self, key: str, query: str, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return what a search engine found. Raises WebFailure."""
        ...


class FetchExecutor:
    """Carries out `fetch_webpage`."""

    def __init__(self, web: Web) -> None:
        self._web = web

    async def run(self, actor: Actor, work: Work) -> Result:  # noqa: ARG002
        """Fetch the page."""
        url = work.arguments.get("url")
        if not isinstance(url, str):
            return refused("fetch_webpage needs `url`, a string")
        try:
            async with asyncio.timeout(work.execution.limits.timeout_seconds):
                page = await self._web.fetch(url)
        except (WebFailure, InvalidArgument) as error:
            return _failed(CallEnding.TOOL_ERROR, str(error))
        except TimeoutError:
            return _failed(CallEnding.TIMEOUT, f"{url} did not answer in time")
        heading = f"# {page.title}\n\n" if page.title else ""
        return _success(f"{heading}{page.text}")


class SearchExecutor:
    """Carries out `web_search`."""

    def __init__(self, web: Web, environment: Environment, key: str) -> None:
        self._web = web
        self._environment = environment
        self._key = key

    async def run(self, actor: Actor, work: Work) -> Result:
        """Search."""
        query = work.arguments.get("query")
        if not isinstance(query, str) or not query.strip():
            return refused("web_search needs `query`, a string")
        variables = {**await self._environment.variables(actor), **work.execution.environment_variables}
        key = variables.get(KEY_VARIABLE) or self._key
        if not key:
            return refused(f"web_search needs {KEY_VARIABLE}, as a variable of the agent or of the deployment")
        options = {
            name: value
            for name, kind in _SEARCH_ARGUMENTS.items()
            # What a model fills in wrongly is left out: the search is worth more than its options.
            if isinstance(value := work.arguments.get(name), kind) and value
        }
        try:
            async with asyncio.timeout(work.execution.limits.timeout_seconds):
                results = await self._web.search(key, query, options)
        except WebFailure as error:
            return _failed(CallEnding.TOOL_ERROR, str(error))
        except TimeoutError:
            return _failed(CallEnding.TIMEOUT, "the search engine did not answer in time")
        return _success({"query": query, "results": results})


def _success(value: object) -> Result:
    return Result(CallEnding.SUCCESS, Isolation.NONE, PROVIDER, result=json.dumps(value, ensure_ascii=False))


def _failed(status: CallEnding, message: str) -> Result:
    return Result(status, Isolation.NONE, PROVIDER, failure=ToolFailure("WebError", message))
