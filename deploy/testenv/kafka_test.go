package testenv

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// createTopic makes a topic of one partition.
func createTopic(t *testing.T, addr, name string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 1, 1
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(t.Context(), client)
	if err != nil || resp.Topics[0].ErrorCode != 0 {
		t.Fatalf("create %s: %v, %+v", name, err, resp)
	}
}

// produceIn writes values in one transaction, which is committed.
func produceIn(t *testing.T, addr, topic string, values ...string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.TransactionalID(topic), kgo.DefaultProduceTopic(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		if err := client.ProduceSync(t.Context(), kgo.StringRecord(v)).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if err := client.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
}

// consume reads n committed values.
func consume(t *testing.T, addr, topic string, n int) []string {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var got []string
	for len(got) < n {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		fetches.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	return got
}

func TestKafkaStopsAndGoesOn(t *testing.T) {
	k := NewKafka(t, KafkaOptions{Settings: QuickRestart()})
	topic := Unique("t")
	createTopic(t, k.Addr(), topic)
	addr := k.Addr()
	produceIn(t, addr, topic, "a", "b")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := k.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := k.Start(ctx); err != nil {
		t.Fatal(err)
	}
	produceIn(t, addr, topic, "c")
	if err := k.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := k.Start(ctx); err != nil {
		t.Fatal(err)
	}
	produceIn(t, addr, topic, "d")
	if got := strings.Join(consume(t, addr, topic, 4), ""); got != "abcd" || k.Addr() != addr {
		t.Fatalf("read %q at %s (was %s)", got, k.Addr(), addr)
	}
}

// Topics are never made by accident: the product must create them itself.
func TestKafkaSharedCreatesNoTopics(t *testing.T) {
	client, err := kgo.NewClient(kgo.SeedBrokers(SharedKafka(t)), kgo.UnknownTopicRetries(0), kgo.AllowAutoTopicCreation())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	r := kgo.StringRecord("x")
	r.Topic = Unique("never")
	if err := client.ProduceSync(t.Context(), r).FirstErr(); err == nil {
		t.Fatal("a topic came into being by producing to it")
	}
}

func TestKafkaSettings(t *testing.T) {
	if _, err := StartKafka(t.Context(), KafkaOptions{Settings: map[string]string{"listeners": "nonsense"}}); err == nil {
		t.Error("a node with nonsense for listeners started")
	}
	t.Setenv("TAILRACE_DEPS", t.TempDir())
	if _, err := StartKafka(t.Context(), KafkaOptions{}); err == nil || !strings.Contains(err.Error(), "make deps") {
		t.Errorf("without jars: %v", err)
	}
}
