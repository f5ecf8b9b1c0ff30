package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/initproducerid"
)

// ProducerConfig says what a producer is.
type ProducerConfig struct {
	// TransactionalID makes the producer transactional. It is stable: a
	// producer with the same one fences this one. Empty: idempotent only.
	TransactionalID string
	// TransactionTimeout is how long a transaction may be open before the
	// broker aborts it; default one minute.
	TransactionTimeout time.Duration
	// Timeout is for how long a batch, or a call about a transaction, is tried
	// again; default two minutes, so that a broker's restart is ridden out.
	Timeout time.Duration
	Log     *slog.Logger // nil: the client's
}

// A Producer writes batches. It is idempotent: what it sends again after an
// unclear answer is written once. With a transactional id, what it has written
// is seen by read_committed readers when End has committed it.
//
// After the first error of Produce or End it does nothing any more but return
// that error: whether the batches under way were written is not known, and a
// sequence with a hole would be refused. A new producer is the way on, and the
// recovery that finds out what is there. There is nothing to close.
type Producer struct {
	client *Client
	cfg    ProducerConfig
	log    *slog.Logger

	mutex     sync.Mutex // one call at a time
	id        int64
	epoch     int16
	sequences map[Partition]int32
	txn       transaction
	broken    error // the first error

	before *transactionState // what became of the last transaction of the producer before us; nil: not known
}

// NewProducer gets a producer id from the broker. With a transactional id that
// fences whoever had it before, and ends what they left open: a transaction
// whose end was begun is finished, any other is aborted.
func (c *Client) NewProducer(ctx context.Context, cfg ProducerConfig) (*Producer, error) {
	if cfg.TransactionTimeout <= 0 {
		cfg.TransactionTimeout = time.Minute
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 2 * time.Minute
	}
	if cfg.Log == nil {
		cfg.Log = c.log
	}
	p := &Producer{client: c, cfg: cfg, log: cfg.Log, sequences: make(map[Partition]int32)}
	if p.Transactional() {
		said, err := p.describe(ctx)
		if err != nil {
			return nil, err
		}
		p.before = c.ends.look(cfg.TransactionalID, said)
	}
	if err := p.init(ctx); err != nil {
		return nil, err
	}
	c.ends.follow(cfg.TransactionalID, p.epoch)
	return p, nil
}

// Transactional says whether the producer has a transactional id.
func (p *Producer) Transactional() bool { return p.cfg.TransactionalID != "" }

// ID returns the id and the epoch that the broker gave to the producer. They
// stand in each of its batches.
func (p *Producer) ID() (id int64, epoch int16) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.id, p.epoch
}

// init asks for a producer id and epoch. Id and epoch -1 in the request mean
// that we have none yet; kafka-go's zero values would be taken for producer 0.
func (p *Producer) init(ctx context.Context) error {
	req := &initproducerid.Request{
		TransactionalID:      p.cfg.TransactionalID,
		TransactionTimeoutMs: int32(min(p.cfg.TransactionTimeout/time.Millisecond, math.MaxInt32)),
		ProducerID:           -1,
		ProducerEpoch:        -1,
	}
	return p.client.retry(ctx, p.cfg.Timeout, func(ctx context.Context) error {
		res, err := p.toCoordinator(ctx, opInitProducer, req)
		if err != nil {
			return err
		}
		r := res.(*initproducerid.Response)
		if r.ErrorCode != 0 {
			return p.answered(opInitProducer, Code(r.ErrorCode))
		}
		p.id, p.epoch = r.ProducerID, r.ProducerEpoch
		return nil
	})
}

// toCoordinator sends a request to the coordinator of the transactional id;
// without one any broker will do.
func (p *Producer) toCoordinator(ctx context.Context, op string, req protocol.Message) (protocol.Message, error) {
	addr := p.client.brokers
	if p.Transactional() {
		var err error
		if addr, err = p.coordinator(ctx); err != nil {
			return nil, err
		}
	}
	res, err := p.client.send(ctx, op, addr, req, answerTimeout)
	if err != nil {
		p.txn.coordinator = ""
	}
	return res, err
}

// answered makes the error of a code about the transactional id.
func (p *Producer) answered(op string, code Code) *Error {
	e := answered(op, "", -1, code, "")
	if e.act == actCoordinator {
		p.txn.coordinator = ""
	}
	if id := p.cfg.TransactionalID; id != "" {
		e.Op = fmt.Sprintf("%s (transactional id %s)", op, id)
	}
	return p.timedOut(e)
}

// Outgoing is a batch on its way to a partition.
type Outgoing struct {
	Topic     string
	Partition int32
	Batch     *Batch // sealed, with this producer's Transactional()
	// Offset is set by Produce: where the broker wrote the first record. -1 if
	// the batch was found to be there already and the broker did not say where.
	Offset int64
}

// Produce writes batches; when it returns nil all of them are acknowledged by
// every replica in sync. Batches of one partition are written one after the
// other, in the order of the slice, each after the one before is acknowledged;
// those of different partitions at the same time, in one request for each
// broker. With a transactional id they belong to the transaction that is open,
// or that this call opens. The batches' bytes are not touched after Produce
// has returned. Calls wait for each other.
func (p *Producer) Produce(ctx context.Context, out []*Outgoing) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.broken != nil {
		return fmt.Errorf("produce: producer has failed before: %w", p.broken)
	}
	if err := p.produce(ctx, out); err != nil {
		p.broken = err
		return err
	}
	return nil
}

func (p *Producer) produce(ctx context.Context, out []*Outgoing) error {
	if len(out) == 0 {
		return nil
	}
	for _, o := range out {
		if o.Batch.WireSize() == 0 {
			return errors.New("produce: batch is not sealed")
		}
	}
	if p.Transactional() {
		if err := p.join(ctx, partitionsOf(out)); err != nil {
			return err
		}
	} else if err := p.rewind(ctx); err != nil {
		return err
	}
	return newSender(p, out).run(ctx)
}

// partitionsOf returns where batches go, each partition once.
func partitionsOf(out []*Outgoing) []Partition {
	var parts []Partition
	for _, o := range out {
		if part := (Partition{o.Topic, o.Partition}); !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	return parts
}

// sequenceLimit is where an idempotent producer begins anew.
const sequenceLimit = math.MaxInt32 - 1<<28

// rewind gets a new producer id before a sequence reaches its end: kfake counts
// on from there otherwise than Kafka does. Nothing is under way, so nothing can
// be written twice.
func (p *Producer) rewind(ctx context.Context) error {
	for _, sequence := range p.sequences {
		if sequence > sequenceLimit {
			clear(p.sequences)
			return p.init(ctx)
		}
	}
	return nil
}

// stamp gives the next sequence of the partition to the batch, once; the
// returned bytes are what every attempt sends.
func (p *Producer) stamp(o *Outgoing) []byte {
	key := Partition{o.Topic, o.Partition}
	sequence := p.sequences[key]
	p.sequences[key] = nextSequence(sequence, int32(o.Batch.Len()))
	return o.Batch.Stamp(p.id, p.epoch, sequence)
}

// nextSequence counts as the broker does: 0 follows 2^31-1.
func nextSequence(sequence, records int32) int32 {
	if left := math.MaxInt32 - sequence; records > left {
		return records - left - 1
	}
	return sequence + records
}
