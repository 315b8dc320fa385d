// Calls the agent service with generated types; compiled by `make stubs-typescript`, so that the stubs are known to fit.
import type { AgentServiceClient } from "./gen/letta/agent/v1/AgentService.js";
import type { CreateAgentResponse } from "./gen/letta/agent/v1/CreateAgentResponse.js";

export function createAgent(agents: AgentServiceClient): Promise<CreateAgentResponse | undefined> {
  return new Promise((resolve, reject) => {
    agents.CreateAgent({ memory_blocks: [{ label: "human", value: "" }] }, (error, response) => {
      if (error) reject(error);
      else resolve(response);
    });
  });
}
