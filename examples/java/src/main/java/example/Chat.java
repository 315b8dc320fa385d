package example;

import io.grpc.CallCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import java.util.List;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import letta.agent.v1.AgentServiceGrpc;
import letta.agent.v1.AgentServiceOuterClass.CreateAgentRequest;
import letta.agent.v1.RunOuterClass.RunRequest;
import letta.agent.v1.RunServiceGrpc;
import letta.agent.v1.RunServiceOuterClass.StreamMessageRequest;
import letta.memory.v1.BlockOuterClass.Block;

/** Makes an agent, tells it a fact, and asks for it, over plain gRPC. */
public final class Chat {
  private Chat() {}

  public static void main(String[] arguments) throws InterruptedException {
    String address = arguments.length > 0 ? arguments[0] : "localhost:50051";
    ManagedChannel channel = Grpc.newChannelBuilder(address, InsecureChannelCredentials.create()).build();
    try {
      talk(channel, new Key(System.getenv().getOrDefault("LETTA_API_KEY", "")));
    } finally {
      channel.shutdown().awaitTermination(5, TimeUnit.SECONDS);
    }
  }

  private static void talk(ManagedChannel channel, CallCredentials key) {
    var agents = AgentServiceGrpc.newBlockingStub(channel).withCallCredentials(key);
    var runs = RunServiceGrpc.newBlockingStub(channel).withCallCredentials(key);
    var request = CreateAgentRequest.newBuilder().addMemoryBlocks(Block.newBuilder().setLabel("human")).build();
    String agentId = agents.withDeadlineAfter(30, TimeUnit.SECONDS).createAgent(request).getAgent().getId();
    for (String text : List.of("My name is Sam.", "What is my name?")) {
      System.out.println("you> " + text);
      say(runs.withDeadlineAfter(5, TimeUnit.MINUTES), agentId, text);
    }
  }

  private static void say(RunServiceGrpc.RunServiceBlockingStub runs, String agentId, String text) {
    var run = RunRequest.newBuilder().setInputText(text).setStreamTokens(true);
    var request = StreamMessageRequest.newBuilder().setAgentId(agentId).setRun(run).build();
    runs.streamMessage(request)
        .forEachRemaining(event -> System.out.print(event.getMessage().getAssistantMessage().getText()));
    System.out.println();
  }

  /** Adds the API key to every call; nothing in the development mode. */
  private static final class Key extends CallCredentials {
    private static final Metadata.Key<String> AUTHORIZATION =
        Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
    private final String key;

    Key(String key) {
      this.key = key;
    }

    @Override
    public void applyRequestMetadata(RequestInfo request, Executor executor, MetadataApplier applier) {
      Metadata metadata = new Metadata();
      if (!key.isEmpty()) {
        metadata.put(AUTHORIZATION, "Bearer " + key);
      }
      applier.apply(metadata);
    }
  }
}
