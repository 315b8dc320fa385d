"""Fixtures of every test."""

import gc
import os

# gRPC's handlers of a fork can end the child before it becomes the program that a terminal test starts.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

pytest_plugins = ["tests.support.databases"]


def pytest_collection_finish() -> None:
    """Never look again for garbage among thousands of collected tests: a tenth of the time, where it was measured."""
    gc.collect()
    gc.freeze()
