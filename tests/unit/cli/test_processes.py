"""Processes of services on systems whose kernel is not Linux."""

import sys
from types import SimpleNamespace

from letta_cli.servers import processes


def test_a_libc_without_prctl_is_not_asked_for_it(monkeypatch):
    monkeypatch.setattr(processes, "_libc", SimpleNamespace())
    monkeypatch.setattr(sys, "platform", "darwin")

    processes.end_with_parent()
