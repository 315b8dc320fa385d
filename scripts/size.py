"""Counts the lines of the product, a row for each package: `python -m scripts.size`.

Generated code and migrations do not count. The text of SQL functions does: it is written by hand and current.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = ("libs/protos/", "/migrations/versions/")


@dataclass(frozen=True, slots=True)
class Size:
    """How much is written in some files."""

    files: int = 0
    lines: int = 0
    filled: int = 0
    """Lines that are not empty."""

    def __add__(self, other: Size) -> Size:
        return Size(self.files + other.files, self.lines + other.lines, self.filled + other.filled)


def sizes() -> dict[str, Size]:
    """Return the size of each package of the product, by its folder."""
    return {_name(package): sum((_size(path) for path in sources(package)), Size()) for package in packages()}


def packages() -> list[Path]:
    """Return the folders that have code of the product."""
    return [path for path in [*sorted(ROOT.glob("*/*")), ROOT / "cli"] if _is_package(path)]


def sources(package: Path) -> Iterator[Path]:
    """Yield the files of a package that somebody wrote."""
    for path in sorted((package / "src").rglob("*")):
        if path.suffix in {".py", ".sql"} and not any(part in path.as_posix() for part in LEFT_OUT):
            yield path


def _is_package(path: Path) -> bool:
    written = (path / "pyproject.toml").exists() and (path / "src").is_dir()
    return written and path.relative_to(ROOT).parts[0] in {"libs", "services", "cli"} and path.name != "protos"


def _name(package: Path) -> str:
    return package.relative_to(ROOT).as_posix()


def _size(path: Path) -> Size:
    lines = path.read_text().splitlines()
    return Size(1, len(lines), sum(1 for line in lines if line.strip()))


def main() -> None:
    """Print the table."""
    found = sizes()
    rows = [*sorted(found.items(), key=lambda row: -row[1].lines), ("total", sum(found.values(), Size()))]
    sys.stdout.write(f"{'package':<26}{'files':>7}{'lines':>8}{'filled':>8}\n")
    for name, size in rows:
        sys.stdout.write(f"{name:<26}{size.files:>7}{size.lines:>8}{size.filled:>8}\n")


if __name__ == "__main__":
    main()
