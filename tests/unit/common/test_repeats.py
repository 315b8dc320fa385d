"""Digests of requests: equal for what says the same, and nothing that gives a secret away."""

from __future__ import annotations

import hashlib

import pytest

from letta.agent.v1 import agent_pb2, agent_service_pb2, run_pb2
from letta.memory.v1 import block_pb2, block_service_pb2, passage_service_pb2
from letta_common.values.repeats import Digests

DIGESTS = Digests(b"the deployment's secret")
Agent = agent_pb2.Agent
Keyed = agent_service_pb2.CreateAgentRequest


def test_a_digest_needs_the_secret_of_the_deployment():
    request = Agent(name="a", secret_values={"TOKEN": "1234"})

    assert DIGESTS.of(request) == Digests(b"the deployment's secret").of(request)
    assert DIGESTS.of(request) != Digests(b"another secret").of(request)
    for text in (request.SerializeToString(deterministic=True), b"letta.agent.v1.Agent\0"):
        assert DIGESTS.of(request) != hashlib.sha256(text).digest()


def test_the_key_of_a_request_is_no_part_of_it():
    assert DIGESTS.of(Keyed(request_id="1")) == DIGESTS.of(Keyed(request_id="2"))


def test_what_is_left_out_is_no_part_either():
    loud, quiet = run_pb2.RunRequest(input_text="hi", streaming=True), run_pb2.RunRequest(input_text="hi")

    assert DIGESTS.of(loud, without=("streaming",)) == DIGESTS.of(quiet, without=("streaming",))
    assert DIGESTS.of(loud) != DIGESTS.of(quiet)


@pytest.mark.parametrize(
    "other",
    [
        Agent(name="b", secret_values={"A": "1"}, tags=["x", "y"]),
        Agent(name="a", secret_values={"A": "2"}, tags=["x", "y"]),
        Agent(name="a", secret_values={"B": "1"}, tags=["x", "y"]),
        Agent(name="a", secret_values={"A": "1"}, tags=["y", "x"]),
        Agent(name="a", secret_values={"A": "1"}, tags=["x,y"]),
        Agent(name="a", secret_values={"A": "1"}, tags=["x", "y"], description=""),
    ],
)
def test_another_request_has_another_digest(other):
    assert DIGESTS.of(Agent(name="a", secret_values={"A": "1"}, tags=["x", "y"])) != DIGESTS.of(other)


def test_the_order_of_maps_and_of_json_is_no_difference():
    one, other = Agent(metadata='{"a": 1, "b": [1, 2]}'), Agent(metadata='{"b":[1,2],"a":1}')
    one.secret_values.update({"A": "1", "B": "2"})
    other.secret_values.update({"B": "2", "A": "1"})

    assert DIGESTS.of(one) == DIGESTS.of(other)
    assert DIGESTS.of(one) != DIGESTS.of(Agent(metadata='{"a": 1, "b": [2, 1]}', secret_values={"A": "1", "B": "2"}))


def test_fields_that_the_contract_does_not_know_are_no_difference():
    known = Agent(name="a")
    newer = Agent.FromString(known.SerializeToString() + b"\xfa\x3f\x01x")  # field 1023

    assert newer.SerializeToString() != known.SerializeToString()
    assert DIGESTS.of(newer) == DIGESTS.of(known)


def test_kinds_of_requests_and_what_is_added_are_told_apart():
    block = block_service_pb2.CreateBlockRequest(block=block_pb2.Block(label="a"))
    passages = passage_service_pb2.CreatePassagesRequest(archive_id="a")
    passage = passage_service_pb2.CreatePassageRequest(archive_id="a")

    assert DIGESTS.of(passages) != DIGESTS.of(passage)
    assert len({DIGESTS.of(block), DIGESTS.of(block, "a"), DIGESTS.of(block, "a", "b"), DIGESTS.of(block, "ab")}) == 4
    assert DIGESTS.of(block, passage) != DIGESTS.of(block, passages)


def test_halves_of_characters_are_digested():
    assert DIGESTS.of(Agent(metadata='{"a": "\\ud800"}')) != DIGESTS.of(Agent(metadata='{"a": "\\ud801"}'))
