"""Stores and their fakes have the methods that the domain asks for, and services keep things in Postgres alone."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.support.databases import SCHEMAS


def modules(package: str, room: str = "") -> Iterator[ModuleType]:
    try:
        base = importlib.import_module(f"{package}.{room}" if room else package)
    except ModuleNotFoundError:
        return
    for found in pkgutil.walk_packages(base.__path__, f"{base.__name__}."):
        if not found.name.endswith("__main__") and ".migrations." not in found.name:
            yield importlib.import_module(found.name)


def classes(package: str, room: str = "") -> dict[str, type]:
    return {
        name: kind
        for module in modules(package, room)
        for name, kind in vars(module).items()
        if inspect.isclass(kind) and kind.__module__ == module.__name__
    }


def stores_wanted(package: str) -> dict[str, type]:
    """Return the Protocols of storage by name."""
    return {
        name: kind
        for name, kind in classes(package, "domain").items()
        if getattr(kind, "_is_protocol", False) and name.endswith("Store")
    }


def pairs() -> list[tuple[type, type]]:
    """Return each Protocol of storage with each of its implementations."""
    found = []
    for package in SCHEMAS.values():
        wanted = stores_wanted(package)
        made = classes(package, "store") | classes("tests.fakes", package.removeprefix("letta_"))
        found += [
            (protocol, made[f"{prefix}{name}"])
            for name, protocol in wanted.items()
            for prefix in ("Sql", "Fake")
            if f"{prefix}{name}" in made
        ]
    return found


def methods(protocol: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(method)
        for name, method in inspect.getmembers(protocol, inspect.isfunction)
        if not name.startswith("_")
    }


@pytest.mark.parametrize(
    ("protocol", "implementation"), pairs(), ids=lambda kind: f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
)
def test_implementation_has_the_methods_of_its_protocol(protocol: type, implementation: type):
    wanted, made = methods(protocol), methods(implementation)
    different = {
        name: (str(signature), str(made.get(name)))
        for name, signature in wanted.items()
        if name not in made or list(signature.parameters) != list(made[name].parameters)
    }

    assert different == {}


def test_every_protocol_has_a_database_behind_it():
    behind = {protocol for protocol, implementation in pairs() if implementation.__name__.startswith("Sql")}

    assert {protocol for protocol, _ in pairs()} == behind


def needs_postgres(kind: type) -> bool:
    """Say whether a class is made with the database or a connection to it."""
    given = inspect.signature(kind).parameters.values()
    return any(word in str(parameter.annotation) for parameter in given for word in ("Database", "Connection"))


@pytest.mark.parametrize("package", SCHEMAS.values())
def test_what_keeps_things_in_a_service_is_postgres(package: str):
    wanted = [set(methods(protocol)) for protocol in stores_wanted(package).values()]
    stores = [
        kind
        for kind in classes(package).values()
        if not getattr(kind, "_is_protocol", False) and any(asked <= set(dir(kind)) for asked in wanted)
    ]
    elsewhere = [kind for kind in stores if f"{package}.store." not in kind.__module__ or not needs_postgres(kind)]

    assert stores
    assert elsewhere == []


def forwards(method: object) -> bool:
    """Say whether a method does nothing but call a store with what it was given."""
    [made] = ast.parse(textwrap.dedent(inspect.getsource(method))).body  # type: ignore[arg-type]
    assert isinstance(made, ast.FunctionDef | ast.AsyncFunctionDef)
    [*told, last] = made.body
    call = last.value if isinstance(last, ast.Return | ast.Expr) else None
    call = call.value if isinstance(call, ast.Await) else call
    if len(told) > 1 or not isinstance(call, ast.Call) or "store." not in ast.unparse(call.func):
        return False
    given = [ast.unparse(value) for value in (*call.args, *(keyword.value for keyword in call.keywords))]
    return given == [argument.arg for argument in (*made.args.args[1:], *made.args.kwonlyargs)]


@pytest.mark.parametrize("package", SCHEMAS.values())
def test_no_rule_only_passes_on(package: str):
    ours = classes(package, "domain").values()
    asked = [methods(kind) for kind in ours if getattr(kind, "_is_protocol", False)]
    passed_on = [
        f"{kind.__name__}.{name}"
        for kind in ours
        if not getattr(kind, "_is_protocol", False)
        for name, method in vars(kind).items()
        if inspect.isfunction(method) and method.__module__ == kind.__module__
        if not any(name in wanted and set(wanted) <= set(dir(kind)) for wanted in asked)
        if "__create_fn__" not in method.__qualname__ and not name.startswith("__") and forwards(method)
    ]

    assert passed_on == []


OTHER_WORDS = {"add", "all", "change", "insert", "load", "named", "page", "read", "remove", "replace", "save", "write"}


@pytest.mark.parametrize("protocol", sorted({protocol for protocol, _ in pairs()}, key=str), ids=str)
def test_stores_have_one_verb_for_one_thing(protocol: type):
    answers = {name: str(signature.return_annotation) for name, signature in methods(protocol).items()}
    optional = {name for name, answer in answers.items() if answer.endswith("| None")}

    assert {name for name in answers if name.partition("_")[0] in OTHER_WORDS} == set()
    assert {name for name in answers if name.startswith("get")} & optional == set()
    assert {name for name in answers if name.startswith("find")} <= optional
