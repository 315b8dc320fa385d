"""Tools written in TypeScript: what is read from the source, and what is left of it when its types are gone."""

# ruff: noqa: E501 - sources of tools are text

import contextlib
import json
import shutil
import subprocess
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from letta_tool_schemas.errors import SourceInvalid
from letta_tool_schemas.typescript.erasure import erase
from letta_tool_schemas.typescript.reader import EXPORT, read_schema, read_script
from letta_tool_schemas.typescript.trees import MAX_BYTES

ROLL = """import { randomInt } from "node:crypto";

interface Options {
  /** how many dice */
  count: number;
  label?: string;
}

/**
 * Roll some dice.
 *
 * Every die is fair.
 *
 * @param sides - number of sides
 * @param {Options} options - more
 *   about the dice
 * @param [note] goes into the answer
 * @returns what was rolled
 */
export async function rollDice(sides: number, options: Options, note: string | null = null): Promise<string> {
  return `${note ?? ""}${randomInt(sides)}` as string;
}
"""


def schema_of(hint, before=""):
    source = f"{before}\n/** F.\n * @param x it\n */\nexport function f(x: {hint}) {{ return x }}"
    return read_schema(source)


def test_a_function_becomes_a_schema():
    assert json.loads(read_schema(ROLL).to_json()) == {
        "name": "rollDice",
        "description": "Roll some dice.\n\nEvery die is fair.",
        "parameters": {
            "type": "object",
            "properties": {
                "sides": {"type": "number", "description": "number of sides"},
                "options": {
                    "type": "object",
                    "properties": {
                        "count": {"type": "number", "description": "how many dice"},
                        "label": {"type": "string"},
                    },
                    "required": ["count"],
                    "description": "more about the dice",
                },
                "note": {"type": "string", "description": "goes into the answer"},
            },
            "required": ["sides", "options"],
        },
    }


def test_a_function_becomes_javascript_with_a_signature():
    script = read_script(ROLL)

    assert script.name == "rollDice"
    assert (script.names, script.required) == (("sides", "options", "note"), ("sides", "options"))
    assert not script.as_object
    assert script.nulls == ("note",)
    assert "interface" not in script.javascript
    assert script.javascript.splitlines()[19:21] == [
        "export async function rollDice(sides        , options         , note                = null)                  {",
        '  return `${note ?? ""}${randomInt(sides)}`          ;',
    ]
    assert script.javascript.endswith(f"export {{ rollDice as {EXPORT} }};\n")


HINTS = {
    "string": {"type": "string"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "any": {},
    "unknown": {},
    "object": {"type": "object"},
    "(string)": {"type": "string"},
    "string[]": {"type": "array", "items": {"type": "string"}},
    "readonly number[]": {"type": "array", "items": {"type": "number"}},
    "Array<boolean>": {"type": "array", "items": {"type": "boolean"}},
    "ReadonlyArray<string[]>": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
    "Record<string, number>": {"type": "object", "additionalProperties": {"type": "number"}},
    "Record<string, unknown>": {"type": "object"},
    "{ [key: string]: number }": {"type": "object", "additionalProperties": {"type": "number"}},
    "string | null": {"type": "string"},
    "null | undefined": {"type": "null"},
    "string | number": {"anyOf": [{"type": "string"}, {"type": "number"}]},
    "'a' | \"b\"": {"type": "string", "enum": ["a", "b"]},
    "'a' | 1 | true": {"enum": ["a", 1, True]},
    "'it\\'s' | 'tab\\t\"'": {"type": "string", "enum": ["it's", 'tab\t"']},
    "1 | 2.5 | -3": {"type": "number", "enum": [1, 2.5, -3]},
    "true | 1": {"enum": [True, 1]},
    "string | 'a'": {"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "string"}]},
    "`${string}-x`": {"type": "string"},
    "[string, number]": {
        "type": "array",
        "prefixItems": [{"type": "string"}, {"type": "number"}],
        "items": {"anyOf": [{"type": "string"}, {"type": "number"}]},
        "minItems": 2,
        "maxItems": 2,
    },
    "[a: string, b?: string]": {
        "type": "array",
        "prefixItems": [{"type": "string"}, {"type": "string"}],
        "items": {"type": "string"},
        "minItems": 1,
        "maxItems": 2,
    },
    "{ a: string; 'b-c'?: number, readonly d: 'x' | undefined }": {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b-c": {"type": "number"}, "d": {"type": "string", "enum": ["x"]}},
        "required": ["a"],
    },
    "{ a: string } & { b: number }": {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "number"}},
        "required": ["a", "b"],
    },
    "Named": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
    "Derived": {
        "type": "object",
        "properties": {"a": {"type": "number"}, "b": {"type": "boolean"}},
        "required": ["a", "b"],
    },
    "Alias": {"type": "string", "enum": ["x", "y"]},
    "Partial<Named>": {"type": "object", "properties": {"a": {"type": "string"}}, "required": []},
    "Required<Partial<Named>>": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
    "Readonly<Named>": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
    "Pick<Derived, 'b'>": {"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"]},
    "Omit<Derived, 'b'>": {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]},
}
DECLARED = """
interface Named { a: string }
export interface Derived extends Named { a: number; b: boolean }
type Alias = "x" | "y" | null;
type Loop = { again: Loop };
type Generic<T> = { x: T };
class Thing { x = 1 }
"""


@pytest.mark.parametrize("hint", list(HINTS))
def test_types_become_schemas(hint):
    properties = schema_of(hint, DECLARED).parameters["properties"]
    assert properties["x"] == {**HINTS[hint], "description": "it"}


@pytest.mark.parametrize(
    "hint",
    [
        "bigint",
        "symbol",
        "never",
        "Date",
        "Map<string, number>",
        "Set<string>",
        "Promise<string>",
        "() => void",
        "new () => Named",
        "keyof Named",
        "typeof f",
        "Named['a']",
        "Named extends string ? 1 : 2",
        "{ [K in 'a']: K }",
        "{ f(): void }",
        "{ [computed]: string }",
        "[string, ...number[]]",
        "string & { a: 1 }",
        "Loop",
        "Generic<string>",
        "Generic",
        "Thing",
        "Missing",
        "Pick<Named>",
        "Pick<Record<string, number>, 'a'>",
        "Omit<string, 'a'>",
        "10n",
    ],
)
def test_types_without_json_form_are_refused(hint):
    with pytest.raises(SourceInvalid, match="parameter `x` of `f`"):
        schema_of(hint, DECLARED)


@pytest.mark.parametrize(
    ("parameter", "required"),
    [
        ("x: string", True),
        ("x?: string", False),
        ("x: string = 'a'", False),
        ("x: string | undefined", False),
        ("x: string | null", False),
        ("x: Alias", False),
        ("x: (string | null)", False),
        ("x: string[] | number", True),
    ],
)
def test_what_is_required(parameter, required):
    source = f"{DECLARED}\n/** F.\n * @param x it */\nexport function f({parameter}) {{}}"

    assert (read_schema(source).parameters["required"] == ["x"]) is required
    assert (read_script(source).required == ("x",)) is required


def test_a_function_may_take_its_arguments_as_one_object():
    source = """
interface Input { /** the city */ city: string; days?: number; unit: 'c' | 'f' }
/** Forecast the weather.
 * @param input.days how many days
 * @param unit of temperature
 */
export const forecast = async ({ city, days = 3, unit = 'c' }: Input): Promise<string> => city;
"""
    schema = read_schema(source)

    assert schema.name == "forecast"
    assert schema.parameters == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "the city"},
            "days": {"type": "number", "description": "how many days"},
            "unit": {"type": "string", "enum": ["c", "f"], "description": "of temperature"},
        },
        "required": ["city"],
    }
    script = read_script(source)
    assert (script.names, script.required, script.as_object) == (("city", "days", "unit"), ("city",), True)


def test_the_last_exported_function_counts_unless_another_is_named():
    source = """
/** One. */
export function one() {}
/** Two. */
function two() {}
/** Three. */
const three = () => 1;
const four = 4;
export { two };
/** Five. */
function five() {}
"""
    assert read_schema(source).name == "two"
    assert read_schema(source, name="five").description == "Five."
    assert read_schema("/** A. */ function a() {}\n/** B. */ const b = function () {}").name == "b"


def test_reserved_parameters_are_hidden():
    source = "/** F.\n * @param x it */\nexport function f(agent_state: any, x: string, agent_id: string) {}"
    assert read_schema(source).parameters["required"] == ["x"]
    assert read_script(source).names == ("agent_state", "x", "agent_id")


def test_an_overloaded_function_is_described_by_its_first_signature():
    source = "/** F.\n * @param x it */\nexport function f(x: string): void;\nexport function f(x: string | number) {}"
    assert read_schema(source).parameters["properties"]["x"]["description"] == "it"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("export function f(", "line 1"),
        ("const x = 1;", "no function"),
        ("", "no function"),
        ("export default () => 1", "needs a name"),
        ("export function* f() {}", "generator"),
        ("export function f() {}", "JSDoc"),
        ("/* not JSDoc */ export function f() {}", "JSDoc"),
        ("/** F. */\nexport function f(x) {}", "type annotation"),
        ("/** F. */\nexport function f(x: string) {}", "@param x"),
        ("/** F.\n * @param x it */\nexport function f(...x: string[]) {}", "name every parameter"),
        ("/** F.\n * @param x it */\nexport function f([x]: string[]) {}", "name every parameter"),
        ("/** F. */\nexport function f(a: string, { b }: { b: string }) {}", "give the object a name"),
        ("/** F. */\nexport function f({ b }) {}", "names its members"),
        ("/** F. */\nexport const f = x => x", "type"),
        ("/** F. */\nexport function $f() {}", "letters"),
        (f"/** F. */\nexport function {'f' * 49}() {{}}", "48"),
        ("/** F. */\nexport function f() {}\nenum E { A }", "line 3: an enum"),
        ("/** F. */\nexport function f() {}\nexport const enum E { A }", "an enum"),
        ("/** F. */\nexport function f() {}\nnamespace N { export const a = 1 }", "a namespace"),
        ("/** F. */\nexport function f() {}\nimport fs = require('fs')", "import"),
        ("/** F. */\nexport function f() {}\nexport = f", "export"),
        ("/** F. */\nexport function f() {}\n@sealed class C {}", "decorators"),
        ("/** F. */\nexport function f() {}\nclass C { @prop x = 1 }", "decorators"),
        (
            "/** F. */\nexport function f() {}\nclass C { constructor(private x: number) {} }",
            "parameter that is a property",
        ),
        ("/** F. */\nexport function f() { return <string>g }", "value as Type"),
        ("/** F. */\nexport function f() { let x = g as any\n[1].map(String) }", "semicolon"),
        ("/** F. */\nexport function f() { return tag<string>`z` }", "template"),
        ("/** F. */\nexport function f() {}\0", "null bytes"),
        ("/** F. */\nexport function f() {}" + " " * MAX_BYTES, "bytes"),
    ],
)
def test_unusable_source_is_refused_with_the_reason(source, says):
    with pytest.raises(SourceInvalid, match=says):
        read_schema(source)


def test_a_named_function_must_be_there():
    with pytest.raises(SourceInvalid, match="no function `g`"):
        read_script("export function f() {}", "g")


def test_types_that_explode_or_have_no_end_are_refused():
    names = "\n".join(f"type T{n} = [T{n - 1}, T{n - 1}, T{n - 1}];" for n in range(1, 20))
    with pytest.raises(SourceInvalid, match="too large"):
        schema_of("T19", f"type T0 = string;\n{names}")
    with pytest.raises(SourceInvalid, match=r"too deeply|too large"):
        schema_of("string" + "[]" * 200)
    with pytest.raises(SourceInvalid):
        read_script("export function f() { return x" + " as any" * 5000 + " }")


@pytest.mark.parametrize("nonsense", ["'" * 100_001, "x!" * 50_000, "(" * 100_000, "a<" * 60_000, "`${" * 60_000])
def test_nonsense_is_refused_in_time(nonsense):
    begun = time.thread_time()
    with pytest.raises(SourceInvalid):
        read_schema(nonsense)
    assert (
        time.thread_time() - begun < 60
    )  # far above what is meant; without a bound it is minutes for the longest source


# Each is checked by Node: the erased code must give the value beside it.
ERASED = {
    "annotations": ("let a: number = 1, b: { c: string }[] = []; function g(this: any, x?: number): x is 1 { return !x }", "[a, b]"),
    "a cast before a parenthesis": ("let a = [1]; const b = a as any\n(() => 1)()", "b"),
    "satisfies": ("const a = { x: 1 } satisfies Record<string, number>;", "a"),
    "a constant": ("const a = ['x'] as const;", "a"),
    "not null": ("const a = [1]!; const b = a![0]!.toFixed!(1);", "b"),
    "generics": ("function g<T extends { a: number } = any>(x: T): T { return x } const a = g<{ a: number }>({ a: 1 });", "a"),
    "a generic arrow": ("const g = <T,>(x: T): T => x; const a = g<number>(3);", "a"),
    "a return type on lines of its own": ("const g = (a: number)\n:\n{\n x: number\n} => ({ x: a }); const a = g(1);", "a"),
    "type parameters on lines of their own": ("const g = async <\n T,\n>(x: T) => x; const a = typeof g(1).then;", "a"),
    "both": ("const g = async <\n T,\n>(x: T): Promise<\n T\n> => x; const a = typeof g(1).then;", "a"),
    "declarations": ("declare const z: string; declare module 'x' { } declare function q(): void\n;[1]", "1"),
    "an interface after a line without an end": ("const a = [7]\ninterface I { x: 1 }\n;[a[0]].length", "a"),
    "an alias before a parenthesis": ("const a = () => 5\ntype T = string\n;(() => 1)()", "a()"),
    "imports of types": ("import type { A } from 'nowhere';\nimport { type B, sep, type C } from 'node:path';\nexport type { A };", "sep"),
    "classes": (
        """abstract class A<T> { abstract m(): void; protected readonly a: number = 1; static s?: string = 'x'; b!: number
  ['c']: string = 'y'
  declare d: number; [k: string]: any
  private get: string
  e(): number { return 2 }
  constructor(x?: T) { }
  f?(x: string): void
}
class B extends A<string> implements Iterable<number> { override m(): void {} *[Symbol.iterator](): any {} }
const o: any = new B('x');""",
        "[o.a, B.s, 'b' in o, o.c, 'd' in o, typeof o.e, o.e(), 'get' in o, 'f' in o]",
    ),
    "overloads": ("function g(x: string): void;\nfunction g(x: number): void;\nfunction g(x: any) { return x }", "g(3)"),
    "ternaries and labels stay": ("const a = true ? (1 as number) : (2); l: for (const x of [1] as number[]) { continue l }", "a"),
    "optional chaining stays": ("const a: any = null; const b = a?.b?.[0]?.(1) ?? 4;", "b"),
    "other letters": ("const ä: string = 'ö' as string; const b = '😀' as any;", "[ä, b]"),
    "comments and strings stay": ("const a = 'x as string'; // y as number\nconst b = `: ${a as string} as z`; /* interface I {} */", "b"),
    "objects with types in methods": ("const a = { g<T>(x: T, y?: number): T { return x }, get h(): number { return 1 } };", "[a.g(2), a.h]"),
    "carriage returns": ("const a: number = 1\r\ntype T = string\r\nconst b: number = a\r\n", "b"),
    "assertion functions": ("function g(x: any): asserts x is string { } const a = g(1) === undefined;", "a"),
    "instantiations": ("function g<T>(x: T) { return x } const h = g<number>; const a = h(2);", "a"),
    "a catch clause": ("let a; try { throw 1 } catch (e: unknown) { a = e as number }", "a"),
    "destructuring": ("const { a, b = 2 }: { a: number; b?: number } = { a: 1 }; const [c]: number[] = [3];", "[a, b, c]"),
    "a definite variable": ("let a!: number; a = 3;", "a"),
    "unique symbols and accessors": ("const s: unique symbol = Symbol('s'); const a = typeof s;", "a"),
    "constructors with type arguments": ("const a = [...new Set<number>([1, 1])], b = new Map<string, number>;", "[a, b.size]"),
}  # fmt: skip
VALUES = {
    "annotations": [1, []],
    "a cast before a parenthesis": [1],
    "satisfies": {"x": 1},
    "a constant": ["x"],
    "not null": "1.0",
    "generics": {"a": 1},
    "a generic arrow": 3,
    "a return type on lines of its own": {"x": 1},
    "type parameters on lines of their own": "function",
    "both": "function",
    "declarations": 1,
    "an interface after a line without an end": [7],
    "an alias before a parenthesis": 5,
    "imports of types": "/",
    "classes": [1, "x", True, "y", False, "function", 2, True, False],
    "overloads": 3,
    "ternaries and labels stay": 1,
    "optional chaining stays": 4,
    "other letters": ["ö", "😀"],
    "comments and strings stay": ": x as string as z",
    "objects with types in methods": [2, 1],
    "carriage returns": 1,
    "assertion functions": True,
    "instantiations": 2,
    "a catch clause": 1,
    "destructuring": [1, 2, 3],
    "a definite variable": 3,
    "unique symbols and accessors": "symbol",
    "constructors with type arguments": [[1], 0],
}


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_what_is_left_runs_and_gives_the_same(tmp_path):
    for number, (name, (source, value)) in enumerate(ERASED.items()):
        erased = erase(source)
        assert len(erased.splitlines()) == len(source.splitlines()), name
        (tmp_path / f"{number}.mjs").write_bytes(f"{erased}\n;export const value = {value};\n".encode())
    main = tmp_path / "main.mjs"
    main.write_text(
        "const all = [];\n"
        f"for (let n = 0; n < {len(ERASED)}; n++)\n"
        "  try { all.push((await import(`./${n}.mjs`)).value) } catch (error) { all.push(String(error)) }\n"
        "console.log(JSON.stringify(all))\n"
    )
    ran = subprocess.run(["node", str(main)], capture_output=True, text=True, timeout=60, check=False)

    assert ran.returncode == 0, ran.stderr
    assert dict(zip(ERASED, json.loads(ran.stdout), strict=True)) == VALUES


NAMES = st.sampled_from(["a", "b", "count", "label"])
SIMPLE = st.sampled_from(["string", "number", "boolean", "any", "'x'", "1", "null", "true"])
TYPES = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(
        inner.map(lambda x: f"({x})[]"),
        st.lists(inner, min_size=2, max_size=3).map(lambda x: "(" + " | ".join(x) + ")"),
        st.lists(inner, min_size=1, max_size=3).map(lambda x: "[" + ", ".join(x) + "]"),
        st.dictionaries(NAMES, inner, max_size=3).map(
            lambda x: "{ " + "; ".join(f"{key}: {hint}" for key, hint in x.items()) + " }"
        ),
        inner.map(lambda x: f"Record<string, {x}>"),
    ),
    max_leaves=8,
)


@given(TYPES)
@settings(max_examples=150, deadline=None)
def test_any_type_made_of_known_ones_has_a_schema(hint):
    schema = schema_of(hint)
    assert json.loads(schema.to_json())["parameters"]["properties"]["x"]["description"] == "it"
    erased = erase(f"const x: {hint} = null as {hint};")
    assert erased.replace(" ", "") == "constx=null;"


@given(st.text(alphabet="abfx (){}[]<>:;,.=?!|&\n'\"`/*@enumtypeasfunctionexportclassinterface0123", max_size=120))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_text_is_read_or_refused(text):
    for read in (read_schema, read_script, erase):
        try:
            read(text)
        except SourceInvalid:
            continue


@given(st.integers(0, len(ROLL)), st.integers(0, len(ROLL)))
@settings(max_examples=200, deadline=None)
def test_torn_source_is_read_or_refused(start, end):
    with contextlib.suppress(SourceInvalid):
        read_script(ROLL[:start] + ROLL[end:])
