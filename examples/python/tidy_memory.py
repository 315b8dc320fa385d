"""Tell an agent the same twice and the contrary once, and accept what the memory service proposes to do about it.

Run `make run` first, then `.venv/bin/python examples/python/tidy_memory.py`.
"""

from __future__ import annotations

import sys
import time

import grpc

from letta.agent.v1 import agent_service_pb2, agent_service_pb2_grpc, run_pb2, run_service_pb2, run_service_pb2_grpc
from letta.memory.v1 import (
    block_pb2,
    memory_review_service_pb2,
    memory_review_service_pb2_grpc,
    memory_suggestion_pb2,
    passage_service_pb2,
    passage_service_pb2_grpc,
)


def main(address: str = "localhost:50051") -> None:
    """Fill the memory of a new agent, and let it be tidied."""
    with grpc.insecure_channel(address) as channel:
        agents = agent_service_pb2_grpc.AgentServiceStub(channel)
        blocks = [block_pb2.Block(label="human", value="Name: Sam\nLocation: Oslo")]
        agent = agents.CreateAgent(agent_service_pb2.CreateAgentRequest(memory_blocks=blocks), timeout=30).agent
        passages = passage_service_pb2_grpc.PassageServiceStub(channel)
        for text in ("Sam likes green tea.", "Sam likes green tea with honey."):
            remembered = passage_service_pb2.CreateArchivalMemoryRequest(agent_id=agent.id, text=text)
            passages.CreateArchivalMemory(remembered, timeout=60)
        runs = run_service_pb2_grpc.RunServiceStub(channel)
        said = run_pb2.RunRequest(input_text="I moved to Quito last month.")
        runs.SendMessage(run_service_pb2.SendMessageRequest(agent_id=agent.id, run=said), timeout=300)
        accept_all(memory_review_service_pb2_grpc.MemoryReviewServiceStub(channel), agent.id, 2)


def accept_all(
    reviews: memory_review_service_pb2_grpc.MemoryReviewServiceStub, agent_id: str, number: int, seconds: float = 60
) -> None:
    """Wait for suggestions about an agent and accept them."""
    asked = memory_review_service_pb2.ListMemorySuggestionsRequest(
        agent_id=agent_id, state=memory_suggestion_pb2.MEMORY_SUGGESTION_STATE_OPEN
    )
    end = time.monotonic() + seconds
    while number and time.monotonic() < end:
        for found in reviews.ListMemorySuggestions(asked, timeout=30).suggestions:
            texts = " + ".join(each.text for each in found.passages) or found.correction.line
            sys.stdout.write(f"{texts} -> {found.correction.replacement or found.passages[-1].text}\n")
            accept = memory_review_service_pb2.AcceptMemorySuggestionRequest(suggestion_id=found.id)
            reviews.AcceptMemorySuggestion(accept, timeout=30)
            number -= 1
        time.sleep(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
