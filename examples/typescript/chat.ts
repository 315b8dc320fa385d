// Makes an agent, tells it a fact, and asks for it, over plain gRPC. The contracts are loaded as they are; nothing is generated.
import { fileURLToPath } from "node:url";

import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

interface Agent {
  id: string;
}

interface Event {
  message?: { assistant_message?: { text?: string } };
}

type Unary<Request, Response> = (
  request: Request,
  metadata: grpc.Metadata,
  options: grpc.CallOptions,
  done: (error: grpc.ServiceError | null, response?: Response) => void,
) => grpc.ClientUnaryCall;

interface AgentService extends grpc.Client {
  CreateAgent: Unary<{ memory_blocks: { label: string; value: string }[] }, { agent: Agent }>;
}

interface RunService extends grpc.Client {
  StreamMessage(
    request: { agent_id: string; run: { input_text: string; stream_tokens: boolean } },
    metadata: grpc.Metadata,
    options: grpc.CallOptions,
  ): grpc.ClientReadableStream<Event>;
}

type Constructor<Service> = new (address: string, credentials: grpc.ChannelCredentials) => Service;

interface Contracts {
  letta: { agent: { v1: { AgentService: Constructor<AgentService>; RunService: Constructor<RunService> } } };
}

const root = fileURLToPath(new URL("../../..", import.meta.url));
const address = process.argv[2] ?? "localhost:50051";
const metadata = new grpc.Metadata();
if (process.env.LETTA_API_KEY) metadata.set("authorization", `Bearer ${process.env.LETTA_API_KEY}`);

function load(): Contracts["letta"]["agent"]["v1"] {
  const files = ["letta/agent/v1/agent_service.proto", "letta/agent/v1/run_service.proto"];
  const options = { keepCase: true, longs: Number, enums: String, includeDirs: [`${root}/proto`, `${root}/third_party`] };
  return (grpc.loadPackageDefinition(loadSync(files, options)) as unknown as Contracts).letta.agent.v1;
}

function deadline(seconds: number): grpc.CallOptions {
  return { deadline: Date.now() + seconds * 1000 };
}

function createAgent(agents: AgentService): Promise<Agent> {
  return new Promise((resolve, reject) => {
    agents.CreateAgent({ memory_blocks: [{ label: "human", value: "" }] }, metadata, deadline(30), (error, response) => {
      if (error || !response) reject(error ?? new Error("no answer"));
      else resolve(response.agent);
    });
  });
}

async function say(runs: RunService, agent: Agent, text: string): Promise<void> {
  console.log(`you> ${text}`);
  const run = { input_text: text, stream_tokens: true };
  for await (const event of runs.StreamMessage({ agent_id: agent.id, run }, metadata, deadline(300))) {
    process.stdout.write((event as Event).message?.assistant_message?.text ?? "");
  }
  process.stdout.write("\n");
}

const { AgentService, RunService } = load();
const agents = new AgentService(address, grpc.credentials.createInsecure());
const runs = new RunService(address, grpc.credentials.createInsecure());
try {
  const agent = await createAgent(agents);
  await say(runs, agent, "My name is Sam.");
  await say(runs, agent, "What is my name?");
} finally {
  agents.close();
  runs.close();
}
