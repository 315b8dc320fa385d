"""Source that no call can run is refused when the tool is made; what runs is taken."""

import pytest

from letta_tool_schemas.docstrings import read_docstring
from letta_tool_schemas.errors import SourceInvalid
from letta_tool_schemas.schemas import agreed_schema, derive_schema

DOC = '"""Do it."""'


def given(properties, required=()):
    return {"name": "f", "parameters": {"type": "object", "properties": properties, "required": list(required)}}


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (f"@tool\ndef f():\n    {DOC}", "`tool` is not defined"),
        (f"def f(a: int = DEFAULT):\n    {DOC}", "`DEFAULT` is not defined"),
        (f"class M(Base):\n    pass\ndef f():\n    {DOC}", "`Base` is not defined"),
        (f"def f():\n    {DOC}\nclass f:\n    pass", "is a class further down"),
        (f"def f():\n    {DOC}\nreturn 1", "outside function"),
        (f"def f(a, a):\n    {DOC}", "duplicate argument"),
        (f"def f():\n    {DOC}\n    nonlocal x", "nonlocal"),
        (f"def f(a, /):\n    {DOC}", "positional-only"),
        (
            "class StockTool(BaseTool):\n    def run(self): ...",
            "StockTool` is a class; a tool is.*args_schema",
        ),
    ],
)
def test_what_cannot_run_is_refused_with_what_to_do(source, says):
    with pytest.raises(SourceInvalid, match=says):
        derive_schema(source)


@pytest.mark.parametrize(
    ("source", "schema", "says"),
    [
        ("def f(a, b): ...", given({"a": {}}), "needs `b`"),
        ("def f(*, a): ...", given({}), "needs `a`"),
        ("def f(a): ...", given({"a": {}, "c": {}}, ["a", "c"]), "requires `c`"),
        ("def f(a): ...", given({"a": {}, "thinking": {}}, ["a", "thinking"]), "requires `thinking`"),
        ("def f(a, /): ...", given({"a": {}}), "positional-only"),
    ],
)
def test_a_given_schema_is_about_the_function(source, schema, says):
    with pytest.raises(SourceInvalid, match=says):
        agreed_schema(source, schema)


@pytest.mark.parametrize(
    ("source", "schema"),
    [
        ("def f(self, a, agent_state=None, b=1): ...", given({"a": {}}, ["a"])),
        ("def f(**given): ...", given({"a": {}}, ["a"])),
        ("def f(a): ...", given({"a": {}, "request_heartbeat": {}}, ["a", "request_heartbeat"])),
        ("from x import *\n@anything\ndef f(): ...", given({})),
        ("try:\n    import y\nexcept ImportError:\n    y = None\n@y\ndef f(a=[i for i in range(3)]): ...", given({})),
    ],
)
def test_what_may_run_is_taken(source, schema):
    assert agreed_schema(source, schema).name == "f"


@pytest.mark.parametrize(
    "text",
    [
        "Area.\n\nParameters\n----------\nw : float\n    The width.\n\nReturns\n-------\nfloat\n    It.",
        "Area.\n\n:param w: The width.\n:type w: float\n:return: It.",
        "Area.\n\n:param float w: The\n    width.",
        "Area.\n\n@param w: The width.\n@return: It.",
        "Area.\n\nArgs:\n    w:The width.",
        "Area.\n\nArgs:\n    w (float):The width.\n\nReturns:\n    It.",
        "Area.\n\narguments:\n  w:\n    The width.",
    ],
)
def test_docstrings_of_every_style_are_read(text):
    docstring = read_docstring(text)
    assert (docstring.description, docstring.parameters) == ("Area.", {"w": "The width."})


def test_enumerations_and_times_have_schemas():
    source = '''
class Level(Enum):
    LOW = auto()
    HIGH = auto()
def f(a: Level, b: datetime, c: "dt.date", d: UUID):
    """F.

    :param a: it
    :param b: it
    :param c: it
    :param d: it
    """
'''
    found = derive_schema(source).parameters["properties"]
    assert found["a"]["enum"] == [1, 2]
    assert [found[name].get("format") for name in "bcd"] == ["date-time", "date", "uuid"]
