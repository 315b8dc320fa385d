"""Functions of tools: which one of the source is called, and whether it can be called at all."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Mapping
from typing import Any

from letta_tool_schemas.borrowed_names import KNOWN, ROOTS, defined
from letta_tool_schemas.errors import SourceInvalid

RESERVED = frozenset({"self", "agent_state", "agent_id"})
"""Parameters that are filled in at the call and hidden from the model."""
Function = ast.FunctionDef | ast.AsyncFunctionDef
_OF_THE_LOOP = frozenset({"request_heartbeat"})
"""Arguments that schemas may declare and that functions never get."""
_ALWAYS = frozenset(dir(builtins)) | KNOWN.keys() | ROOTS | {"__name__", "__file__", "__doc__"}
# What LangChain's tools derive from.
_CLASSES_OF_TOOLS = {"BaseTool", "StructuredTool", "Tool"}


def parsed(source: str) -> ast.Module:
    """Return the syntax tree. Raises SourceInvalid, also for what only the compiler refuses."""
    if "\0" in source:  # which error the parser raises depends on the release of Python
        raise SourceInvalid("the source contains null bytes")
    try:
        tree = ast.parse(source)
        # `return` outside of a function, for one, parses and does not compile.
        compile(source, "<tool>", "exec", dont_inherit=True)
    except SyntaxError as error:
        raise SourceInvalid(f"line {error.lineno or 1}: {error.msg}", line=str(error.lineno or 1)) from error
    except (ValueError, MemoryError, RecursionError) as error:
        raise SourceInvalid(f"the source cannot be parsed: {type(error).__name__}") from error
    return tree


def function_of(module: ast.Module, name: str) -> Function:
    """Return the named function, else the last one at top level. Raises SourceInvalid."""
    functions = [node for node in module.body if isinstance(node, Function)]
    if name:
        functions = [function for function in functions if function.name == name]
        if not functions:
            raise SourceInvalid(f"the source has no function `{name}` at top level")
    if functions:
        # Helpers stand above what uses them, so the last function is the tool.
        return functions[-1]
    if any(isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda) for node in module.body):
        raise SourceInvalid("a lambda has no type hints and no docstring; write a function with `def`")
    for node in module.body:
        if isinstance(node, ast.ClassDef) and any(_last(base) in _CLASSES_OF_TOOLS for base in node.bases):
            raise SourceInvalid(
                f"`{node.name}` is a class; a tool is a function. Give what its `run` does as a function at top level "
                "with a docstring, and the schema of its `args_schema` as args_json_schema",
                name=node.name,
            )
    raise SourceInvalid("the source has no function at top level")


def check_callable(module: ast.Module, function: Function, schema: Mapping[str, Any] | None = None) -> None:
    """Refuse functions that no call can reach; a given schema must be about their parameters.

    Raises SourceInvalid.
    """
    later = module.body[module.body.index(function) :]
    if any(isinstance(node, ast.ClassDef) and node.name == function.name for node in later):
        raise SourceInvalid(f"`{function.name}` is a class further down; give the function a name of its own")
    _check_names(module)
    given = function.args
    if given.posonlyargs:
        raise SourceInvalid(f"`{function.name}` has positional-only parameters; arguments are passed by name")
    if schema is None:
        return
    names = {argument.arg for argument in (*given.args, *given.kwonlyargs)}
    wanted = [name for name in schema.get("required") or () if isinstance(name, str)]
    unknown = [] if given.kwarg else sorted(set(wanted) - names - _OF_THE_LOOP)
    if unknown:
        raise SourceInvalid(f"the schema requires `{unknown[0]}`, which `{function.name}` does not take")
    plain = len(given.args) - len(given.defaults)
    bare = [argument.arg for argument in given.args[:plain]]
    bare += [arg.arg for arg, value in zip(given.kwonlyargs, given.kw_defaults, strict=True) if value is None]
    missing = [name for name in bare if name not in RESERVED and name not in schema.get("properties", {})]
    if missing:
        raise SourceInvalid(f"`{function.name}` needs `{missing[0]}`, which the schema does not have")


def _check_names(module: ast.Module) -> None:
    """Refuse names that are read as the source is loaded and that nothing defines."""
    # After `from x import *` any name may be defined.
    if any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in ast.walk(module)):
        return
    known = defined(module) | _ALWAYS
    for node in module.body:
        for expression in _read_at_once(node):
            for name in _loaded(expression):
                if name not in known:
                    raise SourceInvalid(
                        f"line {expression.lineno}: `{name}` is not defined in the source; import or define it there",
                        name=name,
                        line=str(expression.lineno),
                    )


def _read_at_once(node: ast.stmt) -> Iterable[ast.expr]:
    if isinstance(node, Function):
        yield from node.decorator_list
        yield from node.args.defaults
        yield from (value for value in node.args.kw_defaults if value is not None)
    elif isinstance(node, ast.ClassDef):
        yield from (*node.decorator_list, *node.bases, *(keyword.value for keyword in node.keywords))


def _loaded(expression: ast.expr) -> Iterable[str]:
    """Yield the names that an expression reads; those that it binds itself are not looked into."""
    # These bind names of their own, and a lambda reads its names only when it is called.
    if isinstance(expression, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        return
    if isinstance(expression, ast.Name) and isinstance(expression.ctx, ast.Load):
        yield expression.id
    for child in ast.iter_child_nodes(expression):
        if isinstance(child, ast.expr):
            yield from _loaded(child)


def _last(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
