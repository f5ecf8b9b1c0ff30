package stream

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/fetch"
)

const (
	defaultFetchBytes = 1 << 20
	defaultFetchWait  = 500 * time.Millisecond
	maxRecordSet      = 1 << 30
)

// FetchOptions say how much is read at once and what.
type FetchOptions struct {
	// MaxBytes bounds what one fetch returns, in bytes as they are stored, but
	// for the first batch, which always comes whole. Default 1 MiB.
	MaxBytes int32
	// MaxWait is for how long the broker waits for a record if there is none;
	// default 500 ms.
	MaxWait time.Duration
	// ReadUncommitted reads up to the end, records of aborted and of open
	// transactions too.
	ReadUncommitted bool
}

func (o FetchOptions) defaults() FetchOptions {
	if o.MaxBytes <= 0 {
		o.MaxBytes = defaultFetchBytes
	}
	if o.MaxWait <= 0 {
		o.MaxWait = defaultFetchWait
	}
	return o
}

// Fetched is what one fetch returned of one partition.
type Fetched struct {
	RecordSet     []byte // batches, for a Decoder; the caller's own
	HighWatermark int64  // the partition's end: the offset after the last record
	LastStable    int64  // the offset of the first record of an open transaction, else the end
	LogStart      int64  // the first offset that is there
	Aborted       []AbortedTxn
	Throttle      time.Duration // how long the broker wants not to be asked
}

// Fetch reads one piece of a partition from an offset on. It follows the
// partition's leader. If the offset is not there the error is an *OffsetError:
// reading goes on nowhere else.
func (c *Client) Fetch(ctx context.Context, topic string, partition int32, offset int64, o FetchOptions) (Fetched, error) {
	o = o.defaults()
	var f Fetched
	err := c.toLeader(ctx, opFetch, topic, partition, func(ctx context.Context, addr string) (err error) {
		f, err = c.fetchOnce(ctx, addr, topic, partition, offset, o)
		return err
	})
	if e, ok := asError(err); ok && e.Code == codeOffsetOutOfRange {
		return Fetched{}, c.outOfRange(ctx, topic, partition, offset, err)
	}
	return f, err
}

// outOfRange says what the partition has instead of offset.
func (c *Client) outOfRange(ctx context.Context, topic string, partition int32, offset int64, cause error) error {
	o, err := c.Offsets(ctx, topic, partition)
	if err != nil {
		return fmt.Errorf("%w (and %v)", cause, err)
	}
	return &OffsetError{Topic: topic, Partition: partition, Offset: offset, Start: o.Start, End: o.End}
}

func (c *Client) fetchOnce(ctx context.Context, addr, topic string, partition int32, offset int64, o FetchOptions) (Fetched, error) {
	res, err := c.send(ctx, opFetch, addr, fetchRequest(topic, partition, offset, o), o.MaxWait+answerTimeout)
	if err != nil {
		return Fetched{}, err
	}
	r := res.(*rawFetchResponse)
	if r.ErrorCode != 0 {
		return Fetched{}, answered(opFetch, topic, partition, Code(r.ErrorCode), "")
	}
	for i := range r.Topics {
		for j := range r.Topics[i].Partitions {
			p := &r.Topics[i].Partitions[j]
			if r.Topics[i].Topic != topic || p.Partition != partition {
				continue
			}
			if p.ErrorCode != 0 {
				return Fetched{}, answered(opFetch, topic, partition, Code(p.ErrorCode), "")
			}
			f := p.fetched()
			f.Throttle = time.Duration(r.ThrottleTimeMs) * time.Millisecond
			return f, nil
		}
	}
	return Fetched{}, &Error{Op: opFetch, Topic: topic, Partition: partition, Message: "the answer leaves the partition out", act: actRefresh}
}

// fetchRequest asks for one partition, outside of any fetch session. The bound
// for the whole answer is out of the way, because an answer that it cuts off
// may lack the list of aborted transactions (kfake); the bound for the
// partition does the work.
func fetchRequest(topic string, partition int32, offset int64, o FetchOptions) *fetch.Request {
	req := &fetch.Request{
		ReplicaID:    -1,
		MaxWaitTime:  int32(o.MaxWait / time.Millisecond),
		MinBytes:     1,
		MaxBytes:     maxRecordSet,
		SessionEpoch: -1,
		Topics: []fetch.RequestTopic{{Topic: topic, Partitions: []fetch.RequestPartition{{
			Partition:          partition,
			CurrentLeaderEpoch: -1,
			FetchOffset:        offset,
			LogStartOffset:     -1,
			PartitionMaxBytes:  o.MaxBytes,
		}}}},
	}
	if !o.ReadUncommitted {
		req.IsolationLevel = 1
	}
	return req
}

// init has kafka-go decode answers to Fetch with our type, in the whole
// process: its own reads record sets in a way that loses batches and times. Its
// Client.Fetch, Reader and Batch must not be used beside this package.
func init() { protocol.Register(&fetch.Request{}, &rawFetchResponse{}) }

// rawFetchResponse is an answer to Fetch, versions 0 to 11 of the protocol,
// that keeps the record sets as they came.
type rawFetchResponse struct {
	ThrottleTimeMs int32           `kafka:"min=v1,max=v11"`
	ErrorCode      int16           `kafka:"min=v7,max=v11"`
	SessionID      int32           `kafka:"min=v7,max=v11"`
	Topics         []rawFetchTopic `kafka:"min=v0,max=v11"`
}

type rawFetchTopic struct {
	Topic      string              `kafka:"min=v0,max=v11"`
	Partitions []rawFetchPartition `kafka:"min=v0,max=v11"`
}

type rawFetchPartition struct {
	Partition            int32         `kafka:"min=v0,max=v11"`
	ErrorCode            int16         `kafka:"min=v0,max=v11"`
	HighWatermark        int64         `kafka:"min=v0,max=v11"`
	LastStableOffset     int64         `kafka:"min=v4,max=v11"`
	LogStartOffset       int64         `kafka:"min=v5,max=v11"`
	AbortedTransactions  []rawAborted  `kafka:"min=v4,max=v11"`
	PreferredReadReplica int32         `kafka:"min=v11,max=v11"`
	RecordSet            rawFetchedSet `kafka:"min=v0,max=v11"`
}

type rawAborted struct {
	ProducerID  int64 `kafka:"min=v4,max=v11"`
	FirstOffset int64 `kafka:"min=v4,max=v11"`
}

// ApiKey is Fetch.
func (r *rawFetchResponse) ApiKey() protocol.ApiKey { return protocol.Fetch }

func (p *rawFetchPartition) fetched() Fetched {
	f := Fetched{
		RecordSet:     p.RecordSet.bytes,
		HighWatermark: p.HighWatermark,
		LastStable:    p.LastStableOffset,
		LogStart:      p.LogStartOffset,
	}
	for _, a := range p.AbortedTransactions {
		f.Aborted = append(f.Aborted, AbortedTxn(a))
	}
	return f
}

// rawFetchedSet is a record set: an int32 size, and that many bytes.
type rawFetchedSet struct{ bytes []byte }

// ReadFrom reads the set from an answer. kafka-go finds it by reflection.
func (s *rawFetchedSet) ReadFrom(r io.Reader) (int64, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, fmt.Errorf("read size of record set: %w", err)
	}
	size := int32(binary.BigEndian.Uint32(head[:]))
	if size > maxRecordSet {
		return 4, fmt.Errorf("read record set: it has %d bytes, more than were asked for", size)
	}
	if size <= 0 {
		return 4, nil
	}
	s.bytes = takeBuffer(int(size))
	n, err := io.ReadFull(r, s.bytes)
	if err != nil {
		return int64(4 + n), fmt.Errorf("read record set: %w", err)
	}
	return int64(4 + n), nil
}

// buffers holds record sets that Readers are done with.
var buffers sync.Pool

func takeBuffer(size int) []byte {
	if b, ok := buffers.Get().(*[]byte); ok && cap(*b) >= size {
		return (*b)[:size]
	}
	return make([]byte, size)
}

// giveBuffer lets the next fetch use b. Nobody may look at b any more.
func giveBuffer(b []byte) {
	if cap(b) > 0 && cap(b) <= 4*defaultFetchBytes {
		buffers.Put(&b)
	}
}
