package topics

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailrace/tailrace/deploy/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func create(t *testing.T, addr, name string, partitions int32) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, partitions, 1
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Topics = append(req.Topics, topic)
	if resp, err := req.RequestWith(t.Context(), client); err != nil || resp.Topics[0].ErrorCode != 0 {
		t.Fatalf("create %s: %v %+v", name, err, resp)
	}
}

// writeIn writes n records to partitions in turn, in one transaction, which is ended as
// told.
func writeIn(t *testing.T, client *kgo.Client, topic string, partitions, from, n int, end kgo.TransactionEndTry) {
	t.Helper()
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		r := &kgo.Record{Topic: topic, Partition: int32(i % partitions), Value: fmt.Append(nil, from+i)}
		if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if err := client.EndTransaction(t.Context(), end); err != nil {
		t.Fatal(err)
	}
}

// The reader must see what is committed, all of it, once, and end where markers of
// transactions are the last thing in a partition; also topics that come into being later.
func TestReaderReadsCommittedToTheEnd(t *testing.T) {
	addr := testenv.SharedKafka(t)
	prefix := testenv.Unique("r")
	producer, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.TransactionalID(prefix), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	reader, err := NewReader(addr, prefix)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	read := func() []string {
		t.Helper()
		var got []string
		if err := reader.To(t.Context(), func(r *kgo.Record) error {
			got = append(got, string(r.Value))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		slices.Sort(got)
		return got
	}
	if got := read(); len(got) != 0 {
		t.Fatalf("before there is a topic: %q", got)
	}
	create(t, addr, prefix+".a", 2)
	writeIn(t, producer, prefix+".a", 2, 10, 4, kgo.TryCommit)
	writeIn(t, producer, prefix+".a", 2, 50, 4, kgo.TryAbort)
	if err := reader.Settled(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := read(); !slices.Equal(got, []string{"10", "11", "12", "13"}) {
		t.Fatalf("after a commit and an abort: %q", got)
	}
	create(t, addr, prefix+".b", 1)
	writeIn(t, producer, prefix+".b", 1, 20, 2, kgo.TryCommit)
	if err := reader.Settled(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := read(); !slices.Equal(got, []string{"20", "21"}) {
		t.Fatalf("of a new topic: %q", got)
	}
	// A transaction that nobody ends must neither be seen nor waited for.
	if err := producer.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := producer.ProduceSync(t.Context(), &kgo.Record{Topic: prefix + ".a", Value: []byte("open")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if got := read(); len(got) != 0 {
		t.Fatalf("of an open transaction: %q", got)
	}
	if err := producer.EndTransaction(context.WithoutCancel(t.Context()), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
}
