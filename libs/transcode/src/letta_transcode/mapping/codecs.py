"""The plans, encoders and decoders of one catalog, together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from letta_transcode.mapping.decoders import Decoders
from letta_transcode.mapping.encoders import Encoders
from letta_transcode.mapping.plans import Planner

if TYPE_CHECKING:
    from letta_transcode.descriptors.catalog import Catalog


class Codecs:
    """What turns the messages of one catalog into JSON and back."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.planner = Planner(catalog)
        self.encoders = Encoders(catalog, self.planner)
        self.decoders = Decoders(catalog, self.planner)
