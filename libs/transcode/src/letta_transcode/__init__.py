"""HTTP/JSON to gRPC and back, from descriptors alone."""

from letta_transcode.descriptors.catalog import Catalog, CatalogError
from letta_transcode.http.errors import ErrorMap, HttpError
from letta_transcode.http.requests import RequestLimits
from letta_transcode.mapping.plans import MappingError
from letta_transcode.routing.openapi import Info
from letta_transcode.transcoder import Transcoder
from letta_transcode.upstream.peers import Pace, Peers

__all__ = [
    "Catalog",
    "CatalogError",
    "ErrorMap",
    "HttpError",
    "Info",
    "MappingError",
    "Pace",
    "Peers",
    "RequestLimits",
    "Transcoder",
]
