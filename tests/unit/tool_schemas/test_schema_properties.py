"""What holds for every function, whatever its parameters: of its schema, of how it is called, of what is kept."""

import inspect
import json
import keyword
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from letta_tool_schemas.docstrings import read_docstring
from letta_tool_schemas.errors import SourceInvalid
from letta_tool_schemas.schemas import (
    RESERVED,
    call_shape,
    derive_schema,
    given_schema,
    load_object,
    parameters_of_model,
)

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: not keyword.iskeyword(name) and name not in RESERVED and name not in dir(__builtins__)
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1).map(
    lambda text: text.replace("\\", "/").replace('"', "'").strip()
).filter(lambda text: text and ":" not in text)  # fmt: skip
SIMPLE = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "Any": {},
    "dict": {"type": "object"},
    "Literal['a', 'b']": {"type": "string", "enum": ["a", "b"]},
}
HINTS = st.recursive(
    st.sampled_from(list(SIMPLE.items())),
    lambda inner: st.one_of(
        inner.map(lambda pair: (f"list[{pair[0]}]", {"type": "array", "items": pair[1]})),
        inner.map(lambda pair: (f"Sequence[{pair[0]}]", {"type": "array", "items": pair[1]})),
        inner.map(
            lambda pair: (
                f"dict[str, {pair[0]}]",
                {"type": "object", **({"additionalProperties": pair[1]} if pair[1] else {})},
            )
        ),
        inner.map(lambda pair: (f"Annotated[{pair[0]}, 1]", pair[1])),
    ),
    max_leaves=4,
)


@st.composite
def parameters(draw: st.DrawFn) -> list[dict[str, Any]]:
    names = draw(st.lists(NAMES, max_size=6, unique=True))
    made = []
    for name in names:
        hint, schema = draw(HINTS)
        optional, default = draw(st.booleans()), draw(st.booleans())
        written = (
            draw(st.sampled_from([f"Optional[{hint}]", f"{hint} | None", f"Union[None, {hint}]"])) if optional else hint
        )
        made.append(
            {
                "name": name,
                "hint": draw(st.sampled_from([written, json.dumps(written)])),
                "schema": schema,
                "optional": optional,
                "default": default,
                "text": draw(TEXTS),
                "only_by_name": draw(st.booleans()),
            }
        )
    return sorted(made, key=lambda item: (item["only_by_name"], item["default"] and not item["only_by_name"]))


def written(items: list[dict[str, Any]], reserved: bool) -> str:
    parts = ["agent_state: Any = None", "agent_id: str = ''"] if reserved else []
    before = [item for item in items if not item["only_by_name"]]
    after = [item for item in items if item["only_by_name"]]
    told = [f"{item['name']}: {item['hint']}{' = None' if item['default'] else ''}" for item in [*before, *after]]
    plain = sum(not item["default"] for item in before)
    signature = [*told[:plain], *parts, *told[plain : len(before)], *(["*", *told[len(before) :]] if after else [])]
    lines = "\n".join(f"        {item['name']}: {item['text']}" for item in items)
    arguments = f"\n\n    Args:\n{lines}" if items else ""
    return (
        "from typing import *\nfrom collections.abc import Sequence\n\n"
        f'def made({", ".join(signature)}):\n    """Does it.{arguments}\n    """\n    return locals()\n'
    )


@given(parameters(), st.booleans())
@settings(deadline=None)
def test_a_schema_says_what_the_function_takes(items, reserved):
    schema = derive_schema(written(items, reserved))

    assert (schema.name, schema.description) == ("made", "Does it.")
    expected = {item["name"]: {**item["schema"], "description": " ".join(item["text"].split())} for item in items}
    found = {
        name: {**value, "description": " ".join(value["description"].split())}
        for name, value in schema.parameters["properties"].items()
    }
    assert found == expected
    assert set(schema.parameters["required"]) == {
        item["name"] for item in items if not item["default"] and not item["optional"]
    }
    assert json.loads(schema.to_json())["parameters"] == schema.parameters


@given(parameters(), st.booleans())
@settings(deadline=None)
def test_what_the_schema_requires_is_enough_to_call_it(items, reserved):
    source = written(items, reserved)
    shape, schema = call_shape(source), derive_schema(source)
    scope: dict[str, Any] = {}
    exec(source, scope)  # the test's own source

    arguments = dict.fromkeys(shape.nulls) | dict.fromkeys(schema.parameters["required"], 1)
    bound = inspect.signature(scope["made"]).bind(**arguments)

    assert set(bound.arguments) == set(arguments)
    assert shape.takes_agent_id is reserved
    assert not set(shape.nulls) & RESERVED


WORDS = st.text(st.characters(codec="utf-8"), max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(WORDS, JSON, max_size=4), JSON)
@settings(deadline=None)
def test_a_given_schema_is_kept_or_refused(properties, more):
    parameters = {"type": "object", "properties": properties, "x-more": more}
    text = json.dumps({"name": "f", "description": "D.", "parameters": parameters})

    kept = given_schema(load_object(text, "json_schema")).to_json()

    assert json.loads(kept) == {"name": "f", "description": "D.", "parameters": parameters}
    assert given_schema(load_object(kept, "json_schema")).to_json() == kept


@given(JSON)
@settings(deadline=None)
def test_any_json_is_a_schema_or_refused(value):
    for text in (json.dumps(value), json.dumps({"name": "f", "parameters": value})):
        try:
            schema = given_schema(load_object(text, "json_schema"))
        except SourceInvalid as error:
            assert error.message  # noqa: PT017 - either answer is right
        else:
            assert json.loads(schema.to_json())["parameters"]["type"] == "object"


@given(JSON, st.dictionaries(st.sampled_from(["A", "B", "C"]), JSON, max_size=3))
@settings(deadline=None)
def test_any_model_is_written_out_or_refused(value, definitions):
    references = {name: {"$ref": f"#/$defs/{name}"} for name in ("A", "B")}
    for schema in ({"properties": value}, {"properties": {**references, "x": value}, "$defs": definitions}):
        try:
            parameters = parameters_of_model(schema)
        except SourceInvalid:
            continue
        assert "$ref" not in json.dumps(parameters) or "$ref" in json.dumps([value, *definitions.values()])


@given(st.text(max_size=300))
@settings(deadline=None)
def test_any_docstring_is_read(text):
    docstring = read_docstring(text)
    assert docstring.description == docstring.description.strip()
    assert all(name.isidentifier() for name in docstring.parameters)


@pytest.mark.parametrize("depth", [10, 31, 200, 5_000])
def test_hints_of_any_depth_are_read_or_refused(depth):
    source = f'def f(x: {"list[" * depth}int{"]" * depth}):\n    """F.\n\n    Args:\n        x: it\n    """'
    if depth <= 31:
        assert json.dumps(derive_schema(source).parameters).count('"array"') == depth
    else:
        with pytest.raises(SourceInvalid):
            derive_schema(source)
