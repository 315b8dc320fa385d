"""Fixtures of every test."""

import gc
import os
import sys
from pathlib import Path

# gRPC's handlers of a fork can end the child before it becomes the program that a terminal test starts.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# Services start hundreds of times and each worker collects all test modules: both are compiled once, and kept.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Each client of HTTP, in servers too, reads the authorities that it trusts: 30 ms for those of the system, 1 for one.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).with_name("data") / "authority.pem")
gc.disable()  # until all is collected: little of that is garbage, and each look for it goes through all of it

pytest_plugins = ["tests.support.databases", "tests.support.servers", "tests.support.workers"]


def pytest_collection_finish() -> None:
    """Never look again for garbage among thousands of collected tests: a tenth of the time, where it was measured."""
    gc.enable()
    gc.collect()
    gc.freeze()
