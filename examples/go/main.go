// Makes an agent, tells it a fact, and asks for it, over plain gRPC.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	agentv1 "example.com/letta/gen/letta/agent/v1"
	memoryv1 "example.com/letta/gen/letta/memory/v1"
)

func main() {
	address := flag.String("address", "localhost:50051", "gRPC address of the server")
	key := flag.String("key", "", "API key; none in the development mode")
	flag.Parse()
	if err := talk(*address, *key); err != nil {
		log.Fatal(explain(err))
	}
}

func talk(address, key string) error {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if key != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key)
	}
	made, err := agentv1.NewAgentServiceClient(conn).CreateAgent(ctx, &agentv1.CreateAgentRequest{
		MemoryBlocks: []*memoryv1.Block{{Label: "human"}},
	})
	if err != nil {
		return err
	}
	runs := agentv1.NewRunServiceClient(conn)
	for _, text := range []string{"My name is Sam.", "What is my name?"} {
		fmt.Println("you>", text)
		if err := say(ctx, runs, made.GetAgent().GetId(), text); err != nil {
			return err
		}
	}
	return nil
}

// say sends one message and prints the answer while it comes.
func say(ctx context.Context, runs agentv1.RunServiceClient, agentID, text string) error {
	stream, err := runs.StreamMessage(ctx, &agentv1.StreamMessageRequest{
		AgentId: agentID,
		Run:     &agentv1.RunRequest{Input: &agentv1.RunRequest_InputText{InputText: text}, StreamTokens: true},
	})
	if err != nil {
		return err
	}
	for {
		event, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			fmt.Println()
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Print(event.GetMessage().GetAssistantMessage().GetText())
	}
}

// explain adds the reason of google.rpc.ErrorInfo to an error.
func explain(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return fmt.Sprintf("%s: %v", info.GetReason(), err)
		}
	}
	return err.Error()
}
