"""What is kept of service identities, and for how long."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letta_common.clock import SystemClock
from letta_common.errors import Unauthenticated
from letta_rpc.service_identity import ServiceIdentities, ServiceIdentity

METHOD, SECRET = "letta.memory.v1.BlockService/GetBlock", b"secret"


class Hand(SystemClock):
    def __init__(self) -> None:
        self.at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at


def test_the_format_is_what_its_page_says() -> None:
    clock = Hand()
    minute = int(clock.at.timestamp()) // 60
    key = hmac.new(SECRET, b"letta.service-identity", "sha256").digest()
    text = f"agent:{minute}:{METHOD}:{hashlib.sha256(b'context').hexdigest()}"
    proof = hmac.new(key, text.encode(), "sha256").hexdigest()

    assert ServiceIdentity("agent", SECRET, clock).of(METHOD, b"context") == f"agent:{minute}:{proof}".encode()


@given(position=st.integers(min_value=0), flip=st.integers(min_value=1, max_value=255))
def test_flipped_bits_are_noticed(position: int, flip: int) -> None:
    clock = Hand()
    identity = bytearray(ServiceIdentity("agent", SECRET, clock).of(METHOD, b"context"))
    identity[position % len(identity)] ^= flip

    with pytest.raises(Unauthenticated):
        ServiceIdentities(SECRET, clock).name(bytes(identity), METHOD, b"context")


def test_both_sides_work_once_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, digests = Hand(), []
    digest = hmac.digest
    maker, checker = ServiceIdentity("agent", SECRET, clock), ServiceIdentities(SECRET, clock)
    monkeypatch.setattr(hmac, "digest", lambda *given: digests.append(given) or digest(*given))
    for minutes, expected in ((0, 2), (0, 2), (1, 4), (0, 4)):
        clock.at += timedelta(minutes=minutes)
        assert checker.name(maker.of(METHOD, b"context"), METHOD, b"context") == "agent"
        assert len(digests) == expected


def test_no_more_is_kept_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("letta_rpc.service_identity._MAX_KEPT", 3)
    clock = Hand()
    maker, checker = ServiceIdentity("agent", SECRET, clock), ServiceIdentities(SECRET, clock)
    for number in range(9):
        context = str(number).encode()
        checker.name(maker.of(METHOD, context), METHOD, context)
        with pytest.raises(Unauthenticated):
            checker.name(maker.of(METHOD, context), METHOD, b"another")

    assert (maker._made.cache_info().currsize, checker._checked.cache_info().currsize) == (3, 3)
