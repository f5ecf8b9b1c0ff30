package stream

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go/protocol/addpartitionstotxn"
	"github.com/segmentio/kafka-go/protocol/endtxn"
	"github.com/segmentio/kafka-go/protocol/findcoordinator"
)

// transaction is what a transactional producer knows of its transaction.
type transaction struct {
	coordinator string // address; "": not known
	open        bool
	since       time.Time
	partitions  map[Partition]struct{} // those that the coordinator knows of
}

// TransactionAge says for how long the transaction has been open, 0 if none is.
func (p *Producer) TransactionAge() time.Duration {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if !p.txn.open {
		return 0
	}
	return time.Since(p.txn.since)
}

// coordinator returns the address of the transactional id's coordinator.
func (p *Producer) coordinator(ctx context.Context) (string, error) {
	if p.txn.coordinator != "" {
		return p.txn.coordinator, nil
	}
	const transactional = 1
	req := &findcoordinator.Request{Key: p.cfg.TransactionalID, KeyType: transactional}
	var last error
	for _, addr := range append([]string{p.client.brokers}, p.client.layout.some()...) {
		res, err := p.client.send(ctx, opCoordinator, addr, req, answerTimeout)
		if err != nil {
			last = err
			continue
		}
		r := res.(*findcoordinator.Response)
		if r.ErrorCode != 0 {
			return "", p.answered(opCoordinator, Code(r.ErrorCode))
		}
		p.txn.coordinator = net.JoinHostPort(r.Host, strconv.Itoa(int(r.Port)))
		return p.txn.coordinator, nil
	}
	return "", last
}

// join makes parts part of the transaction, opening one if none is open. The
// coordinator is told of those only that it does not know.
func (p *Producer) join(ctx context.Context, parts []Partition) error {
	fresh := slices.DeleteFunc(slices.Clone(parts), func(part Partition) bool {
		_, known := p.txn.partitions[part]
		return known
	})
	if len(fresh) == 0 {
		return nil
	}
	if !p.txn.open {
		p.txn.open, p.txn.since = true, time.Now()
		p.txn.partitions = make(map[Partition]struct{})
	}
	req := &addpartitionstotxn.Request{
		TransactionalID: p.cfg.TransactionalID,
		ProducerID:      p.id,
		ProducerEpoch:   p.epoch,
		Topics:          requestTopics(fresh),
	}
	err := p.client.retry(ctx, p.cfg.Timeout, func(ctx context.Context) error {
		res, err := p.toCoordinator(ctx, opAddPartitions, req)
		if err != nil {
			return err
		}
		return p.addVerdict(res.(*addpartitionstotxn.Response))
	})
	if err != nil {
		return err
	}
	if len(p.txn.partitions) == 0 {
		p.client.ends.forget(p.cfg.TransactionalID)
	}
	for _, key := range fresh {
		p.txn.partitions[key] = struct{}{}
	}
	return nil
}

func requestTopics(keys []Partition) []addpartitionstotxn.RequestTopic {
	var topics []addpartitionstotxn.RequestTopic
	for _, key := range keys {
		i := slices.IndexFunc(topics, func(t addpartitionstotxn.RequestTopic) bool { return t.Name == key.Topic })
		if i < 0 {
			i = len(topics)
			topics = append(topics, addpartitionstotxn.RequestTopic{Name: key.Topic})
		}
		topics[i].Partitions = append(topics[i].Partitions, key.Number)
	}
	return topics
}

// addVerdict returns the error that weighs most: one that is not tried again
// before one that is, and any before "not attempted", which says only that
// another partition failed.
func (p *Producer) addVerdict(r *addpartitionstotxn.Response) error {
	var worst *Error
	for _, t := range r.Results {
		for _, part := range t.Results {
			code := Code(part.ErrorCode)
			if code == 0 {
				continue
			}
			e := p.answered(opAddPartitions, code)
			e.Topic, e.Partition = t.Name, part.PartitionIndex
			if worst == nil || worst.act.retried() && !e.act.retried() || worst.Code == codeNotAttempted {
				worst = e
			}
		}
	}
	if worst == nil {
		return nil
	}
	return worst
}

// End ends the transaction: it commits, or aborts. Without an open transaction,
// and without a transactional id, it does nothing. If the request was sent and
// not answered the error is an ErrOutcomeUnknown. After a Produce that failed
// it returns that failure: what is open then is aborted by the next producer
// with the id.
func (p *Producer) End(ctx context.Context, commit bool) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.broken != nil {
		return fmt.Errorf("end transaction: producer has failed before: %w", p.broken)
	}
	if !p.txn.open {
		return nil
	}
	if err := p.end(ctx, commit); err != nil {
		p.broken = err
		return err
	}
	p.txn = transaction{coordinator: p.txn.coordinator}
	return nil
}

func (p *Producer) end(ctx context.Context, commit bool) error {
	req := &endtxn.Request{
		TransactionalID: p.cfg.TransactionalID,
		ProducerID:      p.id,
		ProducerEpoch:   p.epoch,
		Committed:       commit,
	}
	return p.client.retry(ctx, p.cfg.Timeout, func(ctx context.Context) error {
		res, err := p.toCoordinator(ctx, opEndTxn, req)
		if err != nil {
			return unknownOutcome(ctx, err)
		}
		if code := Code(res.(*endtxn.Response).ErrorCode); code != 0 {
			return p.answered(opEndTxn, code)
		}
		return nil
	})
}

// unknownOutcome turns the error of a request to end a transaction that may
// have arrived into one that is not tried again: by the time of a second one,
// the first may still be on its way, and end another transaction.
func unknownOutcome(ctx context.Context, err error) error {
	e, ok := asError(err)
	switch {
	case ok && e.act == actUnanswered && e.Op == opEndTxn:
		return &Error{Op: opEndTxn, Partition: -1, Err: fmt.Errorf("%w: %w", ErrOutcomeUnknown, e.Err), act: actRecover}
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w: %w", opEndTxn, ErrOutcomeUnknown, context.Cause(ctx))
	}
	return err
}

// timedOut tells a fencing from what looks the same: the broker has aborted
// our own transaction because it was open for too long, and raised the epoch.
func (p *Producer) timedOut(e *Error) *Error {
	if e.act != actFenced || !p.txn.open || time.Since(p.txn.since) < p.cfg.TransactionTimeout {
		return e
	}
	t := *e
	t.Err, t.act = ErrTransactionTimeout, actRecover
	t.hint = "the transaction was open for longer than its timeout; the pipeline was stopped or blocked for that long"
	return &t
}
