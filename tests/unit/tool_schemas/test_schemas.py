"""Schemas from source: what is understood, what is refused, and that nothing runs."""

import ast
import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letta_tool_schemas.errors import SourceInvalid
from letta_tool_schemas.schemas import call_shape, derive_schema, function_name, given_schema, parameters_of_model

PRELUDE = '''
import typing
import typing as t
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import *
from pydantic import BaseModel, Field

class Colour(str, Enum):
    RED = "red"
    BLUE = "blue"

class Level(IntEnum):
    LOW = 1
    HIGH = 2

class Base(BaseModel):
    """A base.

    Args:
        name: What it is called.
    """
    name: str
    kind: ClassVar[int] = 1
    _secret: int = 2

class Item(Base):
    price: float = Field(..., description="In euros.", ge=0, lt=100)
    tags: list[str] = Field(default_factory=list, max_length=3)
    colour: Optional[Colour] = None

@dataclass
class Point:
    x: int
    y: int = 0
    rest: list[int] = field(default_factory=list)

class Movie(TypedDict):
    title: Required[str]
    year: NotRequired[int]

class Loop(BaseModel):
    inner: list["Loop"]

class Plain:
    pass

Vector = list[float]
UserId = NewType("UserId", int)
Again = "Again"
'''


def schema_of(hint, default=""):
    source = f'{PRELUDE}\ndef f(x: {hint}{default}):\n    """F.\n\n    Args:\n        x: it\n    """\n'
    parameters = derive_schema(source).parameters
    schema = dict(parameters["properties"]["x"])
    assert schema.pop("description") == "it"
    return schema, parameters["required"] == ["x"]


ITEM = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "description": "What it is called."},
        "price": {"type": "number", "description": "In euros.", "minimum": 0, "exclusiveMaximum": 100},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
        "colour": {"type": "string", "enum": ["red", "blue"]},
    },
    "required": ["name", "price"],
}


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        ("str", {"type": "string"}),
        ("int", {"type": "integer"}),
        ("float", {"type": "number"}),
        ("bool", {"type": "boolean"}),
        ("None", {"type": "null"}),
        ("Any", {}),
        ("object", {}),
        ("list", {"type": "array", "items": {}}),
        ("List[str]", {"type": "array", "items": {"type": "string"}}),
        ("typing.List[int]", {"type": "array", "items": {"type": "integer"}}),
        ("t.Sequence[bool]", {"type": "array", "items": {"type": "boolean"}}),
        ("set[int]", {"type": "array", "items": {"type": "integer"}}),
        ("dict", {"type": "object"}),
        ("Dict[str, int]", {"type": "object", "additionalProperties": {"type": "integer"}}),
        ("dict[str, Any]", {"type": "object"}),
        ("Optional[int]", {"type": "integer"}),
        ("int | None", {"type": "integer"}),
        ("Union[int, None, str]", {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        ("Union[int, int]", {"type": "integer"}),
        ("Optional[None]", {"type": "null"}),
        ("Literal['a', 'b']", {"type": "string", "enum": ["a", "b"]}),
        ("Literal[1, 'b', None]", {"enum": [1, "b"]}),
        ("Literal[True]", {"type": "boolean", "enum": [True]}),
        ("tuple", {"type": "array", "items": {}}),
        ("tuple[int, ...]", {"type": "array", "items": {"type": "integer"}}),
        (
            "Tuple[int, int]",
            {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "integer"}],
                "items": {"type": "integer"},
                "minItems": 2,
                "maxItems": 2,
            },
        ),
        ("'list[int]'", {"type": "array", "items": {"type": "integer"}}),
        ("Vector", {"type": "array", "items": {"type": "number"}}),
        ("UserId", {"type": "integer"}),
        ("Colour", {"type": "string", "enum": ["red", "blue"]}),
        ("Level", {"type": "integer", "enum": [1, 2]}),
        ("Annotated[int, Field(ge=1)]", {"type": "integer", "minimum": 1}),
        ("list[Item]", {"type": "array", "items": ITEM}),
        (
            "Point",
            {
                "type": "object",
                "properties": {
                    "x": {"type": "integer"},
                    "y": {"type": "integer"},
                    "rest": {"type": "array", "items": {"type": "integer"}},
                },
                "required": ["x"],
            },
        ),
        (
            "Movie",
            {
                "type": "object",
                "properties": {"title": {"type": "string"}, "year": {"type": "integer"}},
                "required": ["title"],
            },
        ),
    ],
)
def test_hints_become_schemas(hint, schema):
    assert schema_of(hint)[0] == schema


@pytest.mark.parametrize(
    "hint", ["bytes", "Plain", "Loop", "Again", "Callable[[int], int]", "x.y.Z", "Literal[f()]", "'['"]
)
def test_hints_without_json_form_are_refused(hint):
    with pytest.raises(SourceInvalid, match="`x`"):
        schema_of(hint)


@pytest.mark.parametrize(
    ("hint", "default", "required"),
    [
        ("int", "", True),
        ("int", " = 1", False),
        ("Optional[int]", "", False),
        ("int | None", "", False),
        ("Union[None, int]", "", False),
        ("'Optional[int]'", "", False),
        ("Annotated[Optional[int], 'n']", "", False),
        ("Item", "", True),
    ],
)
def test_what_is_required(hint, default, required):
    assert schema_of(hint, default)[1] is required


def test_a_description_may_stand_in_the_hint():
    source = 'def f(x: Annotated[int, "how many"], y: Annotated[int, Field(description="which")]):\n    """F."""\n'
    properties = derive_schema(source).parameters["properties"]

    assert [properties[name]["description"] for name in "xy"] == ["how many", "which"]


def test_the_last_function_counts_unless_another_is_named():
    source = 'def one():\n    """1."""\n\nasync def two():\n    """2."""\n\nclass C:\n    def three(self): ...\n'

    assert derive_schema(source).name == "two"
    assert derive_schema(source, name="one").description == "1."
    assert function_name(source) == "two"
    with pytest.raises(SourceInvalid, match="three"):
        derive_schema(source, name="three")


def test_reserved_parameters_are_hidden():
    source = '''
def f(self, agent_state: "AgentState", x: int, *, agent_id: str, y: int = 1):
    """F.

    Args:
        x: it
        y (int): other
    """
'''
    parameters = derive_schema(source).parameters

    assert (list(parameters["properties"]), parameters["required"]) == (["x", "y"], ["x"])


def test_a_docstring_is_read_as_google_writes_it():
    source = '''
def f(a: dict[str, int], b: str, c: int = 1):
    """Do it.

    At length: and more.

    Example:
        f({}, "b")

    Args:
        a (dict[str, int]): First line
            and second.
        b: With: a colon
        **c (int, optional): Third

    Returns:
        str: nothing: at all

    Raises:
        ValueError: never
    """
'''
    schema = derive_schema(source)

    assert schema.description == 'Do it.\n\nAt length: and more.\n\nExample:\n    f({}, "b")'
    described = {name: value["description"] for name, value in schema.parameters["properties"].items()}
    assert described == {"a": "First line and second.", "b": "With: a colon", "c": "Third"}


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def f(:\n", "line 1"),
        ("x = 1\n  y", "line 2"),
        ("f = lambda x: x", "lambda"),
        ("", "no function"),
        ("class C:\n    def f(self): ...", "no function"),
        ("def f(x: int): ...", "docstring"),
        ('def f(x):\n    """F.\n\n    Args:\n        x: it\n    """', "`x`.*annotation"),
        ('def f(x: int):\n    """F.\n\n    Args:\n        y: it\n    """', "`x`.*Args"),
        ('def f(*args):\n    """F."""', r"\*args"),
        ('def f(**kw):\n    """F."""', r"\*\*kw"),
        ('def f(x, /):\n    """F."""', "positional"),
        (f'def {"f" * 49}():\n    """F."""', "49 characters"),
        ('def fä():\n    """F."""', "letters"),
        ("def f(): 'a'\0", "null"),
        ("x = '\ud800'", "cannot be parsed"),
        ("-" * 100_000 + "1", "cannot be parsed"),
        ("f" + "()" * 100_000, "cannot be parsed"),
    ],
)
def test_unusable_source_is_refused_with_the_reason(source, says):
    with pytest.raises(SourceInvalid, match=says):
        derive_schema(source)


def test_explosive_types_are_refused():
    classes = "\n".join(f"class C{n}(BaseModel):\n    a: C{n + 1}\n    b: C{n + 1}" for n in range(30))
    source = (
        f'{classes}\nclass C30(BaseModel):\n    a: int\ndef f(x: C0):\n    """F.\n\n    Args:\n        x: it\n    """'
    )
    with pytest.raises(SourceInvalid, match="too large"):
        derive_schema(source)
    definitions = {f"D{n}": {"anyOf": [{"$ref": f"#/$defs/D{n + 1}"}] * 2} for n in range(40)} | {"D40": {}}
    with pytest.raises(SourceInvalid, match="too large"):
        parameters_of_model({"properties": {"x": {"$ref": "#/$defs/D0"}}, "$defs": definitions})


def test_nothing_runs(tmp_path):
    trap = tmp_path / "trap"
    lines = [
        "import pathlib",
        f"pathlib.Path({str(trap)!r}).touch()",
        f"def d(x=pathlib.Path({str(trap)!r}).touch()):",
        "    'D.'",
        "@d",
        f"def f(x: pathlib.Path({str(trap)!r}).touch() = 1):",
        "    '''F.\n\n    Args:\n        x: it\n    '''",
    ]
    with pytest.raises(SourceInvalid):
        derive_schema("\n".join(lines))

    assert not trap.exists()


def test_how_a_function_is_called():
    source = "def f(a: Optional[int], b: int | None = 2, *, c: Optional[str], agent_id: Optional[str], d: int): ..."
    shape = call_shape(source)

    assert (shape.function, shape.nulls, shape.takes_agent_id) == ("f", ("a", "c"), True)
    assert call_shape("def f(x: '['): ...").nulls == ()


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({}, "name"),
        ({"name": 1}, "name"),
        ({"name": "f", "description": 1}, "description"),
        ({"name": "f", "parameters": {"type": "array"}}, "parameters"),
        ({"name": "f", "parameters": {"type": "object", "properties": []}}, "properties"),
        ({"name": "a b"}, "letters"),
    ],
)
def test_given_schemas_are_checked(schema, says):
    with pytest.raises(SourceInvalid, match=says):
        given_schema(schema)


def test_models_are_written_out():
    schema = {
        "$defs": {
            "Item": {"title": "Item", "type": "object", "properties": {"title": {"type": "string", "title": "T"}}}
        },
        "properties": {"item": {"$ref": "#/$defs/Item", "description": "One."}, "n": {"type": "integer", "title": "N"}},
        "required": ["item"],
    }

    assert parameters_of_model(schema) == {
        "type": "object",
        "properties": {
            "item": {"type": "object", "properties": {"title": {"type": "string"}}, "description": "One."},
            "n": {"type": "integer"},
        },
        "required": ["item"],
    }
    for wrong in ({"$ref": "#/$defs/None"}, {"$ref": "#/$defs/Loop"}):
        loop = {"Loop": {"properties": {"again": {"$ref": "#/$defs/Loop"}}}}
        with pytest.raises(SourceInvalid):
            parameters_of_model({"properties": {"x": wrong}, "$defs": loop})


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(SourceInvalid):
        json.loads(derive_schema(text).to_json())


def test_the_files_of_this_repository_are_read_or_refused():
    for path in sorted(Path(__file__).parents[3].glob("services/*/src/*/domain/*.py")):
        source = path.read_text()
        for name in [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]:
            with contextlib.suppress(SourceInvalid):
                derive_schema(source, name=name)
