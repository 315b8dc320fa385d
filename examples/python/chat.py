"""Make an agent, tell it a fact, and ask for it: the generated stubs of this repository over plain gRPC.

Run `make run` first, then `.venv/bin/python examples/python/chat.py`.
"""

from __future__ import annotations

import sys

import grpc

from letta.agent.v1 import agent_service_pb2, agent_service_pb2_grpc, run_pb2, run_service_pb2, run_service_pb2_grpc
from letta.memory.v1 import block_pb2


def main(address: str = "localhost:50051") -> None:
    """Talk to a new agent."""
    with grpc.insecure_channel(address) as channel:
        agents = agent_service_pb2_grpc.AgentServiceStub(channel)
        runs = run_service_pb2_grpc.RunServiceStub(channel)
        blocks = [block_pb2.Block(label="human", value="")]
        agent = agents.CreateAgent(agent_service_pb2.CreateAgentRequest(memory_blocks=blocks), timeout=30).agent
        for text in ("My name is Sam.", "What is my name?"):
            run = run_pb2.RunRequest(input_text=text, stream_tokens=True)
            request = run_service_pb2.StreamMessageRequest(agent_id=agent.id, run=run)
            sys.stdout.write(f"you> {text}\n")
            for event in runs.StreamMessage(request, timeout=300):
                sys.stdout.write(event.message.assistant_message.text)
            sys.stdout.write("\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
