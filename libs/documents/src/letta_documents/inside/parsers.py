"""The parsers that are installed, each `None` where it is not."""

from __future__ import annotations

import importlib
from typing import Any


def _loaded(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


charset_normalizer = _loaded("charset_normalizer")
docx = _loaded("docx")
openpyxl = _loaded("openpyxl")
pptx = _loaded("pptx")
pypdf = _loaded("pypdf")
