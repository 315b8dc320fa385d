"""Web tools: pages as text, searches, and no way inside."""

import asyncio
import contextlib
import json
import sys

import pytest

from letta_common.actor import Actor
from letta_common.egress import AddressGuard
from letta_common.errors import InvalidArgument
from letta_sandbox.calls import CallEnding, Limits
from letta_tools.domain.executions.executions import Execution, Work
from letta_tools.domain.executions.web_calls import FetchExecutor, SearchExecutor, WebFailure
from letta_tools.domain.registry.records import RegisteredTool
from letta_tools.providers.web import GuardedWeb, WebOptions
from letta_tools.providers.web_text import text_of_html

ANN = Actor("org-ann", "user-ann")
PAGE = """<!doctype html><html><head><title> A
 page </title><style>p {}</style></head><body><nav>menu</nav>
<h1>Head</h1><p>One&amp;two <b>bold</b><br>line</p><script>alert(1)</script>
<ul><li>first<li><a href="/next?a=1">second</a></ul><a href="javascript:x()">no link</a>
<table><tr><td>a</td><td>b</td></tr></table></body></html>"""
RESULT = {"title": "T", "url": "https://t.example/", "publishedDate": "2026-01-01", "score": 1, "highlights": ["h"]}


class Site:
    """A web site on loopback; `routes` maps a path to status, headers and body."""

    def __init__(self):
        self.routes = {}
        self.requests = []
        self.port = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next((int(line[15:]) for line in head.lower().split("\r\n") if line.startswith("content-length")), 0)
        body = await reader.readexactly(length)
        path = head.split()[1]
        self.requests.append((head, body))
        status, headers, content = self.routes.get(path, (404, {}, b""))
        lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers.items())]
        writer.write("\r\n".join([*lines, f"content-length: {len(content)}", "connection: close", "", ""]).encode())
        writer.write(content)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()


@pytest.fixture
async def site():
    site = Site()
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0)
    site.port = server.sockets[0].getsockname()[1]
    yield site
    server.close()
    await server.wait_closed()


@pytest.fixture
def web(site):
    return GuardedWeb(AddressGuard(["127.0.0.1"]), WebOptions(seconds=5.0, most_bytes=100_000, exa_url=site.url))


class NoVariables:
    async def variables(self, actor):
        return {}


def work(limits=None, environment=None, **arguments):
    execution = Execution("", environment_variables=environment or {}, limits=limits or Limits())
    return Work(RegisteredTool("tool-1", "web_search"), execution, arguments)


def test_a_page_becomes_text():
    title, text = text_of_html(PAGE, "https://site.example/dir/page")

    assert title == "A page"
    assert text.splitlines() == [
        "# Head",
        "",
        "One&two bold",
        "line",
        "",
        "- first",
        "- [second](https://site.example/next?a=1)",
        "",
        "no link",
        "",
        "| a | b",
    ]


@pytest.mark.parametrize(
    "html", ["", "<", "<a href='http://['>x</a>", "<p" * 10_000, "</p>" * 1000, "<![CDATA[", "\0", "<title>"]
)
def test_any_html_is_read(html):
    text_of_html(html, "https://site.example/")


async def test_fetching(site, web):
    site.routes["/"] = (200, {"content-type": "text/html; charset=latin-1"}, "<title>é</title><p>ü".encode("latin-1"))
    site.routes["/data"] = (200, {"content-type": "application/json"}, b'{"a": 1}')
    site.routes["/odd"] = (200, {"content-type": "text/plain; charset=nonsense"}, b"odd")

    page = await web.fetch(f"{site.url}/")
    assert (page.title, page.text) == ("é", "ü")
    assert (await web.fetch(f"{site.url}/data")).text == '{"a": 1}'
    assert (await web.fetch(f"{site.url}/odd")).text == "odd"


async def test_redirects_are_followed_but_not_inside(site, web):
    site.routes["/a"] = (302, {"location": "/b"}, b"")
    site.routes["/b"] = (200, {"content-type": "text/plain"}, b"there")
    site.routes["/inside"] = (302, {"location": "http://127.0.0.2/secret"}, b"")
    site.routes["/file"] = (302, {"location": "file:///etc/passwd"}, b"")
    site.routes["/loop"] = (302, {"location": "/loop"}, b"")

    assert (await web.fetch(f"{site.url}/a")).text == "there"
    for path in ("/inside", "/file"):
        with pytest.raises(InvalidArgument):
            await web.fetch(site.url + path)
    with pytest.raises(WebFailure, match="too often"):
        await web.fetch(f"{site.url}/loop")


async def test_what_cannot_be_fetched(site, web):
    site.routes["/image"] = (200, {"content-type": "image/png"}, b"x")
    site.routes["/large"] = (200, {"content-type": "text/plain"}, b"x" * 200_000)
    site.routes["/zip"] = (200, {"content-type": "text/plain", "content-encoding": "gzip"}, b"x")
    for path, why in (("/none", "404"), ("/image", "image/png"), ("/large", "larger"), ("/zip", "compressed")):
        with pytest.raises(WebFailure, match=why):
            await web.fetch(site.url + path)
    with pytest.raises(WebFailure):
        await web.fetch("http://127.0.0.1:1/")


async def test_fetching_as_a_tool(site, web):
    site.routes["/"] = (200, {"content-type": "text/html"}, PAGE.encode())
    executor = FetchExecutor(web)

    good = await executor.run(ANN, work(url=f"{site.url}/"))
    assert good.status is CallEnding.SUCCESS
    assert json.loads(good.result).startswith("# A page\n\n# Head")
    assert (await executor.run(ANN, work())).status is CallEnding.REFUSED
    inward = await executor.run(ANN, work(url="http://169.254.169.254/"))
    assert (inward.status, "public internet" in inward.failure.message) == (CallEnding.TOOL_ERROR, True)


async def test_fetching_ends_in_time(site, web):
    gate = asyncio.Event()

    async def hang(reader, writer):
        await gate.wait()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    assert (await FetchExecutor(web).run(ANN, work(Limits(timeout_seconds=0.1), url=url))).status is CallEnding.TIMEOUT
    gate.set()
    server.close()


async def test_searching(site, web):
    site.routes["/search"] = (200, {"content-type": "application/json"}, json.dumps({"results": [RESULT, 5]}).encode())
    executor = SearchExecutor(web, NoVariables(), "")
    arguments = {"query": "q", "num_results": 500, "include_domains": ["a.example"], "category": "", "include_text": 1}

    found = await executor.run(ANN, work(environment={"EXA_API_KEY": "mine"}, **arguments))

    assert json.loads(found.result) == {
        "query": "q",
        "results": [{"title": "T", "url": "https://t.example/", "published_date": "2026-01-01", "highlights": ["h"]}],
    }
    head, body = site.requests[0]
    assert "x-api-key: mine" in head
    sent = json.loads(body)
    assert (sent["numResults"], sent["includeDomains"], "category" in sent) == (100, ["a.example"], False)


async def test_searches_that_fail(site, web):
    executor = SearchExecutor(web, NoVariables(), "of the deployment")
    assert (await executor.run(ANN, work(query=" "))).status is CallEnding.REFUSED
    assert (await SearchExecutor(web, NoVariables(), "").run(ANN, work(query="q"))).status is CallEnding.REFUSED
    for route in ((401, {}, b"{}"), (200, {}, b"nonsense"), (200, {}, b'{"results": 1}')):
        site.routes["/search"] = route
        failed = await executor.run(ANN, work(query="q"))
        assert failed.status is CallEnding.TOOL_ERROR


HOSTILE = ["<", "<!", "</", '<a href="', "<!--", "<?", "<p ", "&#9", "<![CDATA[", "<a href=x>t", "<b> </b>", "<a x='"]
HOSTILE += [
    "</a",
    "<script>",
    "<title>",
    "<a <b",
    "<a =",
    "<!--->",
    "<br>\n ",
    "<nav>",
    "<h1>",
    "<a href=x>t</a>",
    " href=",
]


@pytest.mark.parametrize("unit", HOSTILE)
def test_reading_is_linear(unit):
    """Count the steps of the interpreter instead of the time."""

    def steps(length):
        text = (unit * length)[:length]
        count = 0

        def trace(*_):
            nonlocal count
            count += 1

        sys.setprofile(trace)
        try:
            text_of_html(text, "https://site.example/")
        finally:
            sys.setprofile(None)
        return count

    assert steps(40_000) < 5 * steps(10_000) + 200
