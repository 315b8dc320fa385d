"""Source as `inspect.getsource` yields it runs as it is read, and arguments become what the function declares."""

import json

import pytest

from letta_sandbox.calls import CallEnding, Env, SandboxCall
from letta_tool_schemas.annotations import _ARRAYS, _NUMBERS, _OBJECTS, _SCALARS, _TEXTS, _WRAPPERS
from letta_tool_schemas.borrowed_names import _BUILTIN, KNOWN
from letta_tool_schemas.schemas import call_shape, derive_schema

CLASSES = """
class Color(Enum):
    RED = "r"
    TWO = 2

@dataclass
class Point:
    x: int
    tags: Set[str] = field(default_factory=set)
    next: "Optional[Point]" = None

class Named(TypedDict):
    a: int
    b: NotRequired[str]

class Pair(NamedTuple):
    a: int
    b: str = "b"
"""
DOCSTRING = '\n    """F.\n\n    Args:\n        a: it\n    """\n'
MODELS = """
class Part(BaseModel):
    sizes: List[int] = Field(default_factory=list)
    color: Optional[Color] = None

class Item(BaseModel):
    name: str
    count: PositiveInt = 1
    part: Optional["Part"] = None
"""


@pytest.fixture
def called(provider):
    """Call source as a tool is called; return what it returned, or its result when it failed."""

    async def called(source, arguments, **more):
        shape = call_shape(source)
        call = SandboxCall(source, shape.function, json.dumps(arguments), borrowed=shape.borrowed, **more)
        result = await provider.run(call, Env())
        return json.loads(result.result) if result.status is CallEnding.SUCCESS else result

    return called


def test_what_the_reader_of_schemas_knows_can_be_run():
    read = {*_SCALARS, *_ARRAYS, *_OBJECTS, *_TEXTS, *_NUMBERS, *_WRAPPERS, "Any", "Optional", "Union", "Literal"}
    assert sorted(read - _BUILTIN - KNOWN.keys()) in ([], ["ReadOnly"])  # since Python 3.13


@pytest.mark.parametrize(
    "source",
    [
        "def f(a: Dict[str, Union[str, float]]) -> str:\n    return str(len(a))",
        "def f(a: 'Optional[Dict[str, Any]]' = None) -> List[Literal['x']]:\n    return str(len(cast(Dict, a)))",
        "def f(a: typing.Dict) -> pandas.DataFrame:\n    return json.loads(json.dumps(str(len(a))))",
        "def f(a: t.Optional[t.Dict[str, int]] = None) -> 'Missing':\n    return str(len(a))",
        "from __future__ import annotations\ndef f(a: Mapping[str, Any]):\n    return str(len(a))",
        "def f(a: Dict):\n    now = datetime.datetime.now(timezone.utc)\n    return str(int(time.time() > now.day))",
        "class M(BaseModel):\n    x: int\ndef f(a: M):\n    return str(a.x)",
        "class M(pydantic.BaseModel):\n    x: Annotated[int, pydantic.Field(gt=0)]\ndef f(a: M):\n    return str(a.x)",
    ],
)
async def test_names_that_the_imports_of_the_file_brought_are_there(called, source):
    head, body = source.rsplit("def f", 1)
    described = f"{head}def f{body.replace(chr(10), DOCSTRING, 1)}"

    assert "a" in derive_schema(described).parameters["properties"]
    assert await called(source, {"a": {"x": 1}}) == "1"


@pytest.mark.parametrize(
    ("hint", "value", "seen"),
    [
        ("int", "41", "41"),
        ("int", " 41.0 ", "41"),
        ("float", "1.5", "1.5"),
        ("float", 3, "3.0"),
        ("str", 5, "'5'"),
        ("str", {"a": [1]}, "'{\"a\": [1]}'"),
        ("bool", "false", "False"),
        ("bool", "True", "True"),
        ("bool", 1, "True"),
        ("list[int]", '["1", 2]', "[1, 2]"),
        ("List[str]", "['a', 'b']", "['a', 'b']"),
        ("dict", '{"a": 1}', "{'a': 1}"),
        ("Dict[int, bool]", {"1": "yes"}, "{1: True}"),
        ("Optional[int]", "3", "3"),
        ("Optional[int]", None, "None"),
        ("Optional[int]", "null", "None"),
        ("Union[str, int]", "3", "'3'"),
        ("Union[int, str]", "3", "'3'"),
        ("Union[int, List[int]]", "[3]", "[3]"),
        ("float | int", 3, "3"),
        ("Color", "r", "<Color.RED: 'r'>"),
        ("Color", "RED", "<Color.RED: 'r'>"),
        ("Color", "Color.TWO", "<Color.TWO: 2>"),
        ("List[Color]", ["2", "RED"], "[<Color.TWO: 2>, <Color.RED: 'r'>]"),
        ("Point", '{"x": "1", "tags": ["a"], "next": {"x": 2}}', None),
        ("Named", {"a": "1"}, "{'a': 1}"),
        ("Pair", {"a": "1"}, "Pair(a=1, b='b')"),
        ("Pair", [1, "c"], "Pair(a=1, b='c')"),
        ("Set[int]", ["1", 1], "{1}"),
        ("FrozenSet[str]", ["a"], "frozenset({'a'})"),
        ("Tuple[int, str]", ["1", "b"], "(1, 'b')"),
        ("tuple[int, ...]", ["1", 2, 3], "(1, 2, 3)"),
        ("deque[int]", ["1"], "deque([1])"),
        ("Literal['a', 1, True]", "1", "1"),
        ("datetime", "2026-01-02T03:04:05Z", "datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)"),
        ("date", "2026-01-02", "datetime.date(2026, 1, 2)"),
        ("time", "12:30", "datetime.time(12, 30)"),
        ("timedelta", "PT1H30M", "datetime.timedelta(seconds=5400)"),
        ("timedelta", "90", "datetime.timedelta(seconds=90)"),
        ("UUID", "12345678123456781234567812345678", "UUID('12345678-1234-5678-1234-567812345678')"),
        ("Decimal", "1.10", "Decimal('1.10')"),
        ("Path", "/a/b", "PosixPath('/a/b')"),
        ("Annotated[int, 'how many']", "4", "4"),
        ("Any", {"a": "1"}, "{'a': '1'}"),
    ],
)
async def test_arguments_become_what_is_declared(called, hint, value, seen):
    source = f"{CLASSES}\ndef f(a: {hint}):\n    return repr(a)"
    got = await called(source, {"a": value})
    assert got == (seen or "Point(x=1, tags={'a'}, next=Point(x=2, tags=set(), next=None))")


@pytest.mark.parametrize(
    ("hint", "value", "seen"),
    [
        ("Item", '{"name": "n", "count": "2"}', "Item(name='n', count=2, part=None)"),
        ("Item", {"name": "n", "part": '{"sizes": "[1, 2]", "color": "RED"}'}, None),
        ("List[Item]", ['{"name": "n"}'], "[Item(name='n', count=1, part=None)]"),
        ("Dict[str, Item]", {"a": {"name": "n"}}, "{'a': Item(name='n', count=1, part=None)}"),
        ("Annotated[int, Field(gt=3)]", "4", "4"),
        ("Union[Part, Item]", {"name": "n", "count": 3}, "Item(name='n', count=3, part=None)"),
    ],
)
async def test_models_are_made_also_of_text_inside_of_them(called, hint, value, seen):
    source = f"{CLASSES}\n{MODELS}\ndef f(a: {hint}):\n    return repr(a)"
    nested = "Item(name='n', count=1, part=Part(sizes=[1, 2], color=<Color.RED: 'r'>))"
    assert await called(source, {"a": value}) == (seen or nested)


@pytest.mark.parametrize(
    ("hint", "value", "says"),
    [
        ("int", "four", "argument `a` must be a whole number, not 'four'"),
        ("int", 1.5, "argument `a` must be a whole number, not 1.5"),
        ("int", None, "argument `a` must be a whole number, not None"),
        ("float", "nan", "argument `a` must be a number, not 'nan'"),
        ("bool", "maybe", "argument `a` must be true or false, not 'maybe'"),
        ("List[str]", "a, b", "argument `a` must be a JSON list, not 'a, b'"),
        ("List[int]", [1, "x"], "argument `a[1]` must be a whole number, not 'x'"),
        ("Color", "PINK", "argument `a` must be one of 'r', 2, not 'PINK'"),
        ("Literal['x', 'y']", "z", "argument `a` must be one of 'x', 'y', not 'z'"),
        ("Point", {"y": 1}, "argument `a` has no `y`; it has x, tags, next"),
        ("Point", {}, "argument `a` needs `x`"),
        ("Point", {"x": 1, "next": {"x": "q"}}, "argument `a.next` fits none of the declared types: .x: must be"),
        ("Tuple[int, str]", [1], "argument `a` must have 2 items, not 1"),
        ("datetime", "soon", "argument `a` must be a time like 2026-01-31T12:00:00Z, not 'soon'"),
        ("UUID", "x", "argument `a` must be a UUID, not 'x'"),
        ("Item", {"name": "n", "count": "many"}, "argument `a.count` does not fit: Input should be a valid integer"),
    ],
)
async def test_what_does_not_fit_is_told_to_the_model(called, hint, value, says):
    result = await called(f"{CLASSES}\n{MODELS}\ndef f(a: {hint}):\n    return repr(a)", {"a": value})

    assert (result.status, result.failure.kind) == (CallEnding.TOOL_ERROR, "ArgumentError")
    assert result.failure.message.startswith(says)


async def test_null_for_what_has_a_default_is_the_default(called):
    source = "def f(a: int = 3, b: Optional[int] = 4, c: dict = None):\n    return [a, b, c]"
    assert await called(source, {"a": None, "b": None, "c": None}) == [3, None, None]


async def test_a_type_that_did_not_come_along_has_its_members(called):
    source = "def f(a: Order):\n    return [a.parts[0].name, a['id']]"
    assert await called(source, {"a": {"parts": [{"name": "n"}], "id": 1}}) == ["n", 1]


async def test_self_is_the_state_of_the_agent(called):
    state = json.dumps({"name": "Ann", "blocks": [{"label": "human", "value": "Bob"}]})
    source = 'def greet(self: "Agent", name: str):\n    return [self.memory.get_block("human").value, name]'

    assert await called(source, {"name": "n"}, agent_state=state) == ["Bob", "n"]
    assert await called('def greet(self: "Agent", name: str):\n    return name', {"name": "n"}) == "n"


@pytest.mark.parametrize("kind", ["", "async "])
async def test_what_a_generator_yields_is_a_list(called, kind):
    assert await called(f"{kind}def f(n: int):\n    for i in range(n):\n        yield i", {"n": "3"}) == [0, 1, 2]


async def test_what_is_missing_is_named_with_what_to_do(called):
    unbound = await called("def f():\n    return requests.get('')", {})
    absent = await called("def f():\n    import nowhere", {})

    assert "write the import into the function" in unbound.failure.message
    assert "pip_requirements" in absent.failure.message
