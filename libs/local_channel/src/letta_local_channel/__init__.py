"""gRPC inside one process: generated stubs call handlers directly, with the semantics of the network kept."""

from letta_local_channel.channel import LocalChannel
from letta_local_channel.server import LocalServer

__all__ = ["LocalChannel", "LocalServer"]
