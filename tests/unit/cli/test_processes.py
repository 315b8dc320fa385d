"""Processes of services: what they fork from, and systems whose kernel is not Linux."""

import sys
from types import SimpleNamespace

import pytest

from letta_cli.servers import processes


def test_a_libc_without_prctl_is_not_asked_for_it(monkeypatch):
    monkeypatch.setattr(processes, "_libc", SimpleNamespace())
    monkeypatch.setattr(sys, "platform", "darwin")

    processes.end_with_parent()


@pytest.mark.parametrize("cut", [EOFError(), ConnectionRefusedError()])
async def test_a_start_cut_short_is_an_end_like_others_and_the_next_one_works(monkeypatch, cut):
    """What `multiprocessing` raises when the process that services fork from is killed during a start."""
    service = processes.ServiceProcess("none", "letta_none.__main__", {})

    def start(_):
        raise cut

    with monkeypatch.context() as patch:
        patch.setattr(processes._forks.Process, "start", start)
        assert await service._run_once() is None

    assert await service._run_once() == 1, "there is no such service"
