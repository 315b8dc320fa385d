"""The page that shows the OpenAPI document; it needs nothing from elsewhere."""

from __future__ import annotations

from importlib.resources import files

PAGE: bytes = files("letta_gateway").joinpath("docs.html").read_bytes()
