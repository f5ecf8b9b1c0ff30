package stream

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/produce"
	"github.com/segmentio/kafka-go/protocol/rawproduce"
)

// maxRequest bounds the batches of one request; a broker's
// socket.request.max.bytes is 100 MiB. A single batch may be larger.
const maxRequest = 32 << 20

// A sender carries out one Produce. It goes in rounds: the first batch of each
// partition that has any left, one request for each leader, all of them waited
// for. What was not written stays the first of its partition, so there is never
// more than one batch of a partition that is not acknowledged.
type sender struct {
	producer *Producer
	queues   []*queue // one for each partition, in the order in which they came
}

// queue is what is left to write to one partition.
type queue struct {
	topic     string
	partition int32
	left      []*Outgoing
	wire      []byte // the first batch as it is sent, however often; nil: not stamped yet
	pause     *backoff
	err       error // what the last attempt came to; nil: written
}

func newSender(p *Producer, out []*Outgoing) *sender {
	s := &sender{producer: p}
	byPartition := make(map[Partition]*queue, len(out))
	for _, o := range out {
		key := Partition{o.Topic, o.Partition}
		q := byPartition[key]
		if q == nil {
			q = &queue{topic: o.Topic, partition: o.Partition}
			byPartition[key] = q
			s.queues = append(s.queues, q)
		}
		q.left = append(q.left, o)
	}
	return s
}

// run sends until everything is written, or one partition's error is not to be
// tried again.
func (s *sender) run(ctx context.Context) error {
	for len(s.queues) > 0 {
		s.round(ctx)
		failed, err := s.settle()
		if err != nil {
			return err
		}
		if failed == nil {
			continue
		}
		// Partitions that failed wait together, as long as the one that has
		// waited the longest; the others wait with them.
		if err := failed.pause.wait(ctx, failed.err); err != nil {
			return err
		}
	}
	return nil
}

// settle looks at what the round came to. It takes away what was written and
// returns the partition that has failed for the longest, if any.
func (s *sender) settle() (failed *queue, err error) {
	for _, q := range s.queues {
		switch e, again := retriable(q.err); {
		case q.err == nil:
		case !again:
			return nil, s.giveUp(q)
		default:
			s.note(q, e)
			if failed == nil || q.pause.begin.Before(failed.pause.begin) {
				failed = q
			}
		}
	}
	s.queues = slices.DeleteFunc(s.queues, func(q *queue) bool { return len(q.left) == 0 })
	return failed, nil
}

// note remembers that a partition failed for now.
func (s *sender) note(q *queue, e *Error) {
	if q.pause == nil {
		q.pause = newBackoff(s.producer.cfg.Timeout)
		s.producer.log.Warn("produce: trying again", "topic", q.topic, "partition", q.partition, "error", e.Error())
	}
	if e.act != actAgain {
		s.producer.client.stale(q.topic)
	}
}

// giveUp returns the error that ends the Produce.
func (s *sender) giveUp(q *queue) error {
	if e, ok := asError(q.err); ok {
		return s.producer.timedOut(e)
	}
	return q.err
}

// round sends the first batch of each partition, once.
func (s *sender) round(ctx context.Context) {
	var wait sync.WaitGroup
	for addr, queues := range s.byLeader(ctx) {
		wait.Go(func() { s.request(ctx, addr, queues) })
	}
	wait.Wait()
}

// byLeader groups the partitions by the broker that leads them, and stamps what
// is to be sent. Those without a leader fail this round.
func (s *sender) byLeader(ctx context.Context) map[string][]*queue {
	groups := make(map[string][]*queue)
	sizes := make(map[string]int)
	for _, q := range s.queues {
		addr, err := s.producer.client.leader(ctx, opProduce, q.topic, q.partition)
		if err != nil {
			q.err = about(err, q.topic, q.partition)
			continue
		}
		size := q.left[0].Batch.WireSize()
		if sizes[addr] > 0 && sizes[addr]+size > maxRequest {
			continue // another round
		}
		if q.wire == nil {
			q.wire = s.producer.stamp(q.left[0])
		}
		sizes[addr] += size
		groups[addr] = append(groups[addr], q)
	}
	return groups
}

// request sends one request and tells each partition in it what came of it.
func (s *sender) request(ctx context.Context, addr string, queues []*queue) {
	for _, q := range queues {
		q.err = &Error{Op: opProduce, Topic: q.topic, Partition: q.partition, Message: "the answer leaves the partition out", act: actUnanswered}
	}
	res, err := s.producer.client.send(ctx, opProduce, addr, s.message(queues), answerTimeout)
	if err != nil {
		for _, q := range queues {
			q.err = about(err, q.topic, q.partition)
		}
		return
	}
	for _, t := range res.(*produce.Response).Topics {
		for i := range t.Partitions {
			for _, q := range queues {
				if q.topic == t.Topic && q.partition == t.Partitions[i].Partition {
					q.verdict(&t.Partitions[i])
				}
			}
		}
	}
}

// verdict takes the broker's answer about the first batch.
func (q *queue) verdict(p *produce.ResponsePartition) {
	code := Code(p.ErrorCode)
	if code != 0 && code != codeDuplicateSequence {
		q.err = answered(opProduce, q.topic, q.partition, code, p.ErrorMessage)
		return
	}
	q.left[0].Offset = p.BaseOffset
	q.left, q.wire, q.pause, q.err = q.left[1:], nil, nil, nil
}

// message makes the request. It is made anew for each attempt, because reading
// a record set uses it up; the bytes are the same.
func (s *sender) message(queues []*queue) *rawproduce.Request {
	req := &rawproduce.Request{
		TransactionalID: s.producer.cfg.TransactionalID,
		Acks:            -1,
		Timeout:         int32(brokerTimeout / time.Millisecond),
	}
	for _, q := range queues {
		i := slices.IndexFunc(req.Topics, func(t rawproduce.RequestTopic) bool { return t.Topic == q.topic })
		if i < 0 {
			i = len(req.Topics)
			req.Topics = append(req.Topics, rawproduce.RequestTopic{Topic: q.topic})
		}
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, rawproduce.RequestPartition{
			Partition: q.partition,
			RecordSet: protocol.RawRecordSet{Reader: newRecordSet(q.wire)},
		})
	}
	return req
}

// newRecordSet returns wire with its size before it, as a request has it.
// kafka-go copies a raw record set as it is and writes no size.
func newRecordSet(wire []byte) io.Reader {
	size := binary.BigEndian.AppendUint32(make([]byte, 0, 4), uint32(len(wire)))
	return io.MultiReader(bytes.NewReader(size), bytes.NewReader(wire))
}
