package stream

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"
)

// settleGrace is how long markers may take that are on their way.
const settleGrace = 3 * time.Second

// Settle waits until no transaction is open in any of parts, as WaitStable
// does, and ends one that a producer before this one, with the same
// transactional id, has left hanging: Apache Kafka may forget to write the
// markers of a transaction whose end it has answered, if it is killed then, and
// calls the transaction complete all the same. Such a transaction ends as the
// coordinator says that it did. What is not ours, or cannot be told, is left
// alone; the error is then an ErrHanging.
//
// It is for the time before anything is produced.
func (p *Producer) Settle(ctx context.Context, parts []Partition) error {
	hanging, err := p.hanging(ctx, parts)
	if err != nil || len(hanging) == 0 {
		return err
	}
	if commit, known := p.before.outcome(p.id); known {
		if err := p.endFor(ctx, hanging, commit); err != nil {
			return err
		}
	}
	for _, part := range hanging {
		if _, err := p.client.WaitStable(ctx, part.Topic, part.Number); err != nil {
			return err
		}
	}
	return nil
}

// hanging returns the partitions that still have an open transaction when
// those on their way must have ended.
func (p *Producer) hanging(ctx context.Context, parts []Partition) ([]Partition, error) {
	if !p.Transactional() {
		return parts, nil
	}
	limited, cancel := context.WithTimeout(ctx, settleGrace)
	defer cancel()
	var open []Partition
	for _, part := range parts {
		_, err := p.client.WaitStable(limited, part.Topic, part.Number)
		switch {
		case err == nil:
		case limited.Err() != nil && ctx.Err() == nil: // it hangs, or there was no time left to look
			open = append(open, part)
		default:
			return nil, err
		}
	}
	return open, nil
}

// endFor writes markers into parts: a transaction of ours that holds them and
// nothing else ends whatever was open there under our producer id.
func (p *Producer) endFor(ctx context.Context, parts []Partition, commit bool) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.broken != nil || p.txn.open {
		return errors.New("settle: the producer has begun to write, or has failed")
	}
	p.log.Warn("a transaction was left hanging by the broker: ending it as its coordinator did", "partitions", parts, "commit", commit)
	err := p.join(ctx, parts)
	if err == nil {
		err = p.end(ctx, commit)
	}
	if err != nil {
		p.broken = err
		return err
	}
	p.txn = transaction{coordinator: p.txn.coordinator}
	return nil
}

// outcome returns how the transaction ended that a coordinator told of, if it
// was one of producer id's and has ended.
func (s *transactionState) outcome(producerID int64) (commit, known bool) {
	if s == nil || s.producerID != producerID {
		return false, false
	}
	how, ok := strings.CutPrefix(s.state, "Complete")
	if !ok {
		how, ok = strings.CutPrefix(s.state, "Prepare")
	}
	return how == "Commit", ok && (how == "Commit" || how == "Abort")
}

// ends remembers how transactions ended, by transactional id. A coordinator forgets
// it when it gives out the next producer, so that without this a Settle that is
// interrupted, or an answer that is lost, would leave a hanging transaction to a
// person.
type ends struct {
	mutex sync.Mutex
	last  map[string]lastEnd
}

// lastEnd is how a transaction ended that none has followed.
type lastEnd struct {
	*transactionState
	epoch int16 // of the last producer that we know of
}

// look takes what a coordinator says, and returns how the last transaction ended as
// far as is known: nil, not at all. One producer may have come that we do not know of,
// for want of the answer: if it had begun a transaction, the coordinator would tell of
// that one. If two have come, the first may have.
func (e *ends) look(id string, s *transactionState) *transactionState {
	if s == nil {
		return nil
	}
	e.mutex.Lock()
	defer e.mutex.Unlock()
	last, ok := e.last[id]
	if since := s.producerEpoch - last.epoch; ok && s.state == "Empty" && s.producerID == last.producerID && (since == 0 || since == 1) {
		e.last[id] = lastEnd{last.transactionState, s.producerEpoch}
		return last.transactionState
	}
	delete(e.last, id)
	if _, known := s.outcome(s.producerID); known {
		if e.last == nil {
			e.last = make(map[string]lastEnd)
		}
		e.last[id] = lastEnd{s, s.producerEpoch}
	}
	return s
}

// follow notes the epoch of a new producer.
func (e *ends) follow(id string, epoch int16) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if last, ok := e.last[id]; ok {
		e.last[id] = lastEnd{last.transactionState, epoch}
	}
}

// forget is called when a transaction has begun.
func (e *ends) forget(id string) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	delete(e.last, id)
}
