package topics

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Reader reads every partition of some topics, committed records only, each
// partition from its beginning and in order. It belongs to one goroutine.
type Reader struct {
	client   *kgo.Client
	prefix   string                     // of the topics' names
	position map[string]map[int32]int64 // next offset by topic and partition
}

// NewReader makes a reader of the topics whose names begin with prefix and a dot; "": of all
// that there are, whoever made them.
func NewReader(addr, prefix string) (*Reader, error) {
	if prefix != "" {
		prefix += "."
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.FetchMaxWait(200*time.Millisecond),
		kgo.MetadataMinAge(100*time.Millisecond), kgo.RetryTimeout(20*time.Second), kgo.FetchMaxPartitionBytes(4<<20))
	if err != nil {
		return nil, err
	}
	return &Reader{client: client, prefix: prefix, position: map[string]map[int32]int64{}}, nil
}

// Close gives up the connections.
func (r *Reader) Close() { r.client.Close() }

// To reads up to the last stable offsets as of the call and hands each record to take,
// which may keep it.
func (r *Reader) To(ctx context.Context, take func(*kgo.Record) error) error {
	ends, err := r.stable(ctx)
	if err != nil {
		return err
	}
	if err := r.follow(ends); err != nil {
		return err
	}
	for r.behind(ends) {
		fetches := r.client.PollFetches(ctx)
		for _, e := range fetches.Errors() {
			if !kerr.IsRetriable(e.Err) {
				return fmt.Errorf("read %s/%d: %w", e.Topic, e.Partition, e.Err)
			}
		}
		for it := fetches.RecordIter(); !it.Done(); {
			if err := r.take(it.Next(), take); err != nil {
				return err
			}
		}
	}
	return nil
}

// take notes the position and hands on what is no control record.
func (r *Reader) take(record *kgo.Record, take func(*kgo.Record) error) error {
	at := r.position[record.Topic]
	if record.Offset < at[record.Partition] {
		return fmt.Errorf("read %s/%d: offset %d came again, the next is %d: the reader is not to be trusted", record.Topic, record.Partition, record.Offset, at[record.Partition])
	}
	at[record.Partition] = record.Offset + 1
	if record.Attrs.IsControl() {
		return nil
	}
	return take(record)
}

// follow begins to read partitions that are new.
func (r *Reader) follow(ends map[string]map[int32]int64) error {
	fresh := map[string]map[int32]kgo.Offset{}
	for topic, partitions := range ends {
		if r.position[topic] == nil {
			r.position[topic] = map[int32]int64{}
			fresh[topic] = map[int32]kgo.Offset{}
			for p := range partitions {
				r.position[topic][p] = 0
				fresh[topic][p] = kgo.NewOffset().At(0)
			}
		}
		if len(r.position[topic]) != len(partitions) {
			return fmt.Errorf("topic %s had %d partitions and has %d", topic, len(r.position[topic]), len(partitions))
		}
	}
	if len(fresh) > 0 {
		r.client.AddConsumePartitions(fresh)
	}
	return nil
}

func (r *Reader) behind(ends map[string]map[int32]int64) bool {
	for topic, partitions := range ends {
		for p, end := range partitions {
			if r.position[topic][p] < end {
				return true
			}
		}
	}
	return false
}

// stable asks for the last stable offset of every partition of our topics.
func (r *Reader) stable(ctx context.Context) (map[string]map[int32]int64, error) {
	meta, err := r.metadata(ctx)
	if err != nil {
		return nil, err
	}
	req := kmsg.NewPtrListOffsetsRequest()
	req.IsolationLevel = 1 // read committed
	for _, t := range meta {
		topic := kmsg.NewListOffsetsRequestTopic()
		topic.Topic = *t.Topic
		for _, p := range t.Partitions {
			part := kmsg.NewListOffsetsRequestTopicPartition()
			part.Partition, part.Timestamp = p.Partition, -1
			topic.Partitions = append(topic.Partitions, part)
		}
		req.Topics = append(req.Topics, topic)
	}
	out := map[string]map[int32]int64{}
	if len(req.Topics) == 0 {
		return out, nil
	}
	for _, shard := range r.client.RequestSharded(ctx, req) {
		if shard.Err != nil {
			return nil, fmt.Errorf("ask for offsets: %w", shard.Err)
		}
		for _, t := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
			if out[t.Topic] == nil {
				out[t.Topic] = map[int32]int64{}
			}
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return nil, fmt.Errorf("ask for the offsets of %s/%d: %w", t.Topic, p.Partition, err)
				}
				out[t.Topic][p.Partition] = p.Offset
			}
		}
	}
	return out, nil
}

// metadata lists our topics.
func (r *Reader) metadata(ctx context.Context) ([]kmsg.MetadataResponseTopic, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = nil // all
	resp, err := req.RequestWith(ctx, r.client)
	if err != nil {
		return nil, fmt.Errorf("ask for topics: %w", err)
	}
	out := slices.DeleteFunc(resp.Topics, func(t kmsg.MetadataResponseTopic) bool {
		return t.Topic == nil || !strings.HasPrefix(*t.Topic, r.prefix)
	})
	for _, t := range out {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return nil, fmt.Errorf("ask for topic %s: %w", *t.Topic, err)
		}
	}
	return out, nil
}

// Settled waits until the coordinator has ended every transaction whose end was asked
// for: only then is what a reader sees of them final. Apache Kafka only.
func (r *Reader) Settled(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req := kmsg.NewPtrListTransactionsRequest()
		req.StateFilters = []string{"PrepareCommit", "PrepareAbort", "PrepareEpochFence"}
		open := 0
		for _, shard := range r.client.RequestSharded(ctx, req) {
			if shard.Err != nil {
				return fmt.Errorf("list transactions: %w", shard.Err)
			}
			resp := shard.Resp.(*kmsg.ListTransactionsResponse)
			if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
				return fmt.Errorf("list transactions: %w", err)
			}
			open += len(resp.TransactionStates)
		}
		if open == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(errors.New("wait for transactions to end"), ctx.Err())
		}
	}
}
