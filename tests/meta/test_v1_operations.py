"""Each operation of the retired V1 server is served, or says why it is not."""

from __future__ import annotations

from letta_gateway.v1.operations import ABSENT, read_operations
from scripts.contracts import read_contracts
from scripts.reference_rest import plain

OPERATIONS = read_operations()
PAGES = {("GET", "/"), ("GET", "/v1/health/"), ("GET", "/v1/ready/")}
"""What the gateway answers by itself."""


ROUTED = {(verb, plain(path)) for method in read_contracts().methods for verb, path in method.http}


def test_each_operation_is_routed_or_absent_and_not_both():
    routed = {each for each in OPERATIONS if (each.method, plain(each.path)) in ROUTED}
    routed |= {each for each in OPERATIONS if (each.method, each.path) in PAGES}
    named = {each for each in OPERATIONS if each.answer in ABSENT}

    assert len(OPERATIONS) == len({(each.method, plain(each.path)) for each in OPERATIONS}) > 280
    assert [each for each in OPERATIONS if each not in routed | named] == [], "no route: serve it or say why not"
    assert routed & named == set(), "routed now: it is no longer absent"


def test_each_reason_is_a_sentence_and_only_where_one_is_needed():
    assert {each.answer for each in OPERATIONS} == {"served", "differs", *ABSENT}
    assert [each for each in OPERATIONS if (each.answer == "served") != (each.why == "")] == []
    assert [each for each in OPERATIONS if each.why and not each.why.endswith((".", ">."))] == []
