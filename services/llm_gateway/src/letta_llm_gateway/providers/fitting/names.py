"""Names in the letters that vendors take."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection

_OTHER = re.compile(r"[^a-zA-Z0-9_-]+")


def fresh(name: str, taken: Collection[str], *, most: int) -> str:
    """Return a name of the usual letters for one that has others or is too long; none that is taken."""
    mark = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:8]
    plain = _OTHER.sub("_", name)
    # Google's names do not begin with a digit.
    if plain.strip("_") and plain[0].isdigit():
        plain = f"_{plain}"
    if plain.strip("_") and len(plain) <= most and plain not in taken:
        return plain
    # Room for a line and the eight digits of the mark.
    found, turn = f"{plain[: most - 9]}_{mark}", 0
    while found in taken:
        turn += 1
        found = f"{plain[: most - 13]}_{mark}_{turn}"
    return found
