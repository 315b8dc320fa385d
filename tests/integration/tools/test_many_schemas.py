"""Thousands of real function schemas go into the registry, come back whole and reach every vendor.

Needs the files of the wheel `bfcl-eval`: `make bfcl` gets them and runs this, or BFCL_HOME names where they are.
"""

import hashlib
import importlib.util
import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from letta.tools.v1.mcp_server_pb2 import SchemaHealth
from letta_common.actor import Actor
from letta_common.clock import SystemClock
from letta_common.values.ids import new_id
from letta_postgres.db import Database
from letta_tools.domain.mcp.tools import health_of
from letta_tools.domain.registry.records import ToolSourceType
from letta_tools.domain.registry.tools import Tools
from letta_tools.store.tools import SqlToolStore
from tests.integration.tools.wires import FORMATS, definitions, faults

TYPES = {"dict": "object", "float": "number", "tuple": "array", "list": "array", "String": "string"}
TYPES |= {"HashMap": "object", "Hashtable": "object", "ArrayList": "array", "Array": "array", "Boolean": "boolean"}


def home():
    given = os.environ.get("BFCL_HOME")
    if given:
        return Path(given) / "bfcl_eval"
    spec = importlib.util.find_spec("bfcl_eval")
    return Path(spec.origin).parent if spec and spec.origin else None


def plain(schema):
    """Write a schema of the collection, which has types of several languages, as JSON schema."""
    if isinstance(schema, list):
        return [plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kind = schema.get("type")
    rest = {key: plain(value) for key, value in schema.items() if key != "type"}
    if not isinstance(kind, str):
        return rest if kind is None else {"type": plain(kind), **rest}
    known = TYPES.get(kind, kind)
    usable = known in {"object", "array", "string", "integer", "number", "boolean", "null"}
    return {"type": known, **rest} if usable else rest


def functions(directory):
    for path in sorted(directory.rglob("*.json")):
        for line in path.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            found = entry.get("function", entry) if isinstance(entry, dict) else []
            for function in found if isinstance(found, list) else [found]:
                if isinstance(function, dict) and {"name", "parameters"} <= function.keys():
                    yield function


@pytest.fixture
async def tools(database_url):
    db = await Database.open(database_url, schema="tools")
    yield Tools(SqlToolStore(db), SystemClock())
    await db.close()


async def test_they_come_back_whole(tools):
    directory = home()
    if directory is None or not directory.exists():
        pytest.skip("bfcl-eval is not installed; see the top of this file")
    ann = Actor(new_id("org"), "user-ann")
    sent = {}
    for function in functions(directory / "data"):
        schema = {**function, "parameters": plain(function["parameters"])}
        digest = hashlib.sha256(json.dumps(schema, sort_keys=True).encode()).hexdigest()[:8]
        name = f"{re.sub(r'[^a-zA-Z0-9_-]', '_', function['name'])[:50]}_{digest}"
        sent.setdefault(
            name, {"name": name, "description": schema.get("description", ""), "parameters": schema["parameters"]}
        )

    for schema in sent.values():
        await tools.put(ann, {"source_type": ToolSourceType.JSON, "json_schema": json.dumps(schema)})

    assert len(sent) >= 3000
    names = list(sent)
    health = Counter()
    told = Counter()
    for begin in range(0, len(names), 500):
        resolved, _ = await tools.resolve(ann, (), names[begin : begin + 500])
        for tool in resolved:
            kept = json.loads(tool.json_schema)
            assert kept["parameters"] == {"properties": {}, **sent[tool.name]["parameters"], "type": "object"}
            assert list(kept["parameters"].get("properties", {})) == list(
                sent[tool.name]["parameters"].get("properties", {})
            )
            assert kept["description"] == sent[tool.name]["description"]
            judged = health_of(kept["parameters"])
            assert judged.status != SchemaHealth.SCHEMA_HEALTH_INVALID, (tool.name, judged.reasons)
            health[judged.status] += 1
        for vendor in FORMATS:
            for strict in (False, True):
                assert faults(vendor, definitions(resolved, strict=strict), strict=strict) == []
            told[vendor] += len(resolved)
    assert set(told.values()) == {len(sent)}
    assert sum(health.values()) == len(sent)
    print(f"\n{len(sent)} schemas, {dict(health)}, told to {', '.join(told)}")
