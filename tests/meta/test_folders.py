"""No folder of the product's source holds more files than one takes in at a glance."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOST = 15
SOURCES = ("libs/*/src/**", "services/*/src/**", "cli/src/**")
# Generated code; and folders of one file a change, or one a function.
OTHERS = ("libs/protos/", "/migrations/versions/", "/sql/functions/")


def files_of_folders() -> Counter[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *(f":(glob){source}" for source in SOURCES)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout.decode()
    names = [name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    return Counter(str(Path(name).parent) for name in names if not any(part in f"{name}/" for part in OTHERS))


def test_no_folder_holds_more_than_fifteen_files():
    found = files_of_folders()

    assert len(found) > 20
    assert {folder: count for folder, count in found.items() if count > MOST} == {}
