"""HTTP/JSON to gRPC and back, from descriptors alone."""

from letta_transcode.catalog import Catalog, CatalogError
from letta_transcode.errors import ErrorMap, HttpError
from letta_transcode.openapi import Info
from letta_transcode.peers import Pace, Peers
from letta_transcode.plans import MappingError
from letta_transcode.requests import Limits
from letta_transcode.transcoder import Transcoder

__all__ = [
    "Catalog",
    "CatalogError",
    "ErrorMap",
    "HttpError",
    "Info",
    "Limits",
    "MappingError",
    "Pace",
    "Peers",
    "Transcoder",
]
