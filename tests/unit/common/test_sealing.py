"""Sealed secrets: each opens for its place alone, and with a key that is known."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from letta_common.errors import InternalError
from letta_common.sealing import SealedAt, Sealer

PLACE = SealedAt("tools.shelf.secret", "org-a", "row-1")


def test_what_is_sealed_opens_at_its_place_alone():
    sealer = Sealer([b"secret"])
    sealed = sealer.seal(PLACE, b"sk-1")

    assert b"sk-1" not in sealed
    assert sealer.open(PLACE, sealed) == b"sk-1"
    assert sealer.seal(PLACE, b"sk-1") != sealed
    others = (
        replace(PLACE, organization_id="org-b"),
        replace(PLACE, row="row-2"),
        replace(PLACE, column="tools.shelf.other"),
        SealedAt(PLACE.column, PLACE.organization_id + PLACE.row, ""),
    )
    for place in others:
        with pytest.raises(InternalError):
            sealer.open(place, sealed)


def test_what_was_changed_does_not_open():
    sealer = Sealer([b"secret"])
    sealed = sealer.seal(PLACE, b"sk-1")
    for at in range(len(sealed)):
        with pytest.raises(InternalError):
            sealer.open(PLACE, sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :])
        with pytest.raises(InternalError):
            sealer.open(PLACE, sealed[:at])


def test_a_coming_key_a_former_key_and_no_key():
    """The steps of a rotation: every replica knows the coming key, then it seals, then the former one goes."""
    steps = [[b"old"], [b"old", b"new"], [b"new", b"old"], [b"new"]]
    sealers = [Sealer(step) for step in steps]
    for one, next_one in itertools.pairwise(sealers):
        if one is not sealers[2]:
            assert next_one.open(PLACE, one.seal(PLACE, b"sk-1")) == b"sk-1"
        if next_one is not sealers[1]:
            assert one.open(PLACE, next_one.seal(PLACE, b"sk-1")) == b"sk-1"

    assert sealers[0].begins == sealers[1].begins != sealers[2].begins == sealers[3].begins
    assert sealers[2].seal(PLACE, b"").startswith(sealers[2].begins)
    for sealer in (Sealer([b"new"]), Sealer([b"another", b"third"])):
        with pytest.raises(InternalError):
            sealer.open(PLACE, sealers[0].seal(PLACE, b"sk-1"))
