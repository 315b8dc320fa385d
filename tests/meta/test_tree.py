"""The tree keeps its own rules: sizes, no left-over notes, no addresses of one machine, commands that exist."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MADE = ("libs/protos/", "libs/common/src/letta_common/errors.py", "third_party/", "docs/reference/")
TEXT = {
    ".py",
    ".md",
    ".proto",
    ".toml",
    ".yaml",
    ".yml",
    ".json",
    ".sh",
    ".ts",
    ".go",
    ".java",
    ".sql",
    ".lock",
    ".xml",
}
LONGEST_FILE, LONGEST_FUNCTION = 500, 60
LARGEST_COMMON = 1_500
# Words are put together here, so that this file does not name what it looks for.
REGISTRIES = re.compile(
    r"files\.python" + r"hosted\.org|registry\.npm" + r"js\.org|repo1?\.maven\.(org|apache)|proxy\.golang\.org"
)
PLACES = re.compile(r"/(work|root|home/(?!letta/)\w+)/" + r"(main|shared|\.)|/tmp/" + r"plan/")
LEFT_OVER = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b(?!\(#\d+\))")


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.decode()
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]


def written() -> list[Path]:
    return [path for path in tracked() if not path.as_posix().startswith(MADE)]


def text_files() -> list[Path]:
    return [path for path in written() if path.suffix in TEXT or path.name in {"Makefile", "Dockerfile"}]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def is_migration(path: Path) -> bool:
    return "/migrations/versions/" in path.as_posix()


def test_no_file_is_too_long():
    code = [path for path in written() if path.suffix == ".py" and not is_migration(path)]
    long = {str(path): len((ROOT / path).read_text().splitlines()) for path in code}

    assert {path: lines for path, lines in long.items() if lines > LONGEST_FILE} == {}


def test_no_function_is_too_long():
    code = [path for path in written() if path.suffix == ".py" and not is_migration(path)]
    long = [f"{path}: {node.name}" for path in code for node in functions(path) if length(node) > LONGEST_FUNCTION]

    assert not long


@pytest.mark.parametrize("pattern", [LEFT_OVER, REGISTRIES, PLACES], ids=["left over", "registries", "places"])
def test_nothing_of_this_kind_is_in_the_tree(pattern):
    found = [
        f"{path}:{number}: {line.strip()[:80]}"
        for path in text_files()
        for number, line in enumerate((ROOT / path).read_text().splitlines(), 1)
        if pattern.search(line)
    ]

    assert not found


def test_modules_with_a_known_name_are_imported_plainly():
    # What a tool's own process runs may not import at its top what tools have not asked for.
    code = [
        path
        for path in written()
        if "/src/" in path.as_posix() and path.name not in {"harness.py", "borrowed_names.py"}
    ]
    texts = {path: (ROOT / path).read_text() for path in code if path.suffix == ".py"}
    calls = [
        (path, node) for path, text in texts.items() if "import_module" in text for node in ast.walk(ast.parse(text))
    ]
    assert calls
    found = [f"{path}:{node.lineno}" for path, node in calls if isinstance(node, ast.Call) and is_plain_import(node)]

    assert not found


def is_plain_import(node: ast.Call) -> bool:
    """Say whether this calls `import_module` with a name that an import statement could have."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name == "import_module" and bool(node.args) and isinstance(node.args[0], ast.Constant)


def test_what_is_common_stays_small():
    code = [path for path in written() if path.suffix == ".py" and path.is_relative_to("libs/common/src")]

    assert sum(len((ROOT / path).read_text().splitlines()) for path in code) <= LARGEST_COMMON


def test_caches_come_from_libraries():
    """A bounded cache is `cachetools` or `lru_cache`. One is none: prepared statements are closed at the server before
    one is forgotten."""
    own = {"libs/postgres/src/letta_postgres/statements.py"}
    forgets = re.compile(r"\[next\(iter\(|popitem\(last=|\.pop\(next\(iter\(")
    code = [path for path in written() if path.suffix == ".py" and path.parts[0] in {"libs", "services", "cli"}]

    assert {path.as_posix() for path in code if forgets.search((ROOT / path).read_text())} == own


def test_no_lock_file_that_names_a_registry():
    names = {path.name for path in tracked()}

    assert not names & {"uv.lock", "poetry.lock", "yarn.lock", "pnpm-lock.yaml"}


def pages() -> dict[Path, str]:
    return {path: (ROOT / path).read_text() for path in tracked() if path.suffix == ".md"}


def test_commands_of_pages_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        (page.as_posix(), name)
        for page, text in pages().items()
        for name in re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)
    }

    assert named
    assert {(page, name) for page, name in named if name not in targets} == set()


def test_links_of_pages_lead_somewhere():
    links = [
        (page, link.partition("#")[0])
        for page, text in pages().items()
        for link in re.findall(r"\]\(([^)\s]+)\)", text)
        if "://" not in link
    ]

    assert links
    assert [(str(page), link) for page, link in links if link and not (ROOT / page.parent / link).exists()] == []
