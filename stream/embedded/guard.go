package embedded

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A guard refuses what kfake would get wrong: transactions, writes to a disk
// that is all but full, and writes after one that failed. kfake asks it about
// each request, on its own goroutine, before it acts upon the request.
type guard struct {
	dir   string
	floor atomic.Int64 // bytes; less than 1: none
	log   *slog.Logger

	full   atomic.Bool // as of the last Produce, so that a change is logged once
	failed atomic.Bool // a write failed since the last producer began
	holds  atomic.Pointer[held]
}

// held is a topic that only one producer may write to for now.
type held struct {
	topic  string
	id     [16]byte
	except int64 // producer id
}

// Kafka's codes that requests are refused with.
const (
	codeUnknownServerError = -1
	codeNotEnoughReplicas  = 19
	codeTxnIDNotAuthorized = 53
	codeStorage            = 56
)

// install puts the guard between kfake and its clients, for good.
func (g *guard) install(c *kfake.Cluster) {
	c.Fault(
		g.refuse(codeTxnIDNotAuthorized, "the embedded broker has no transactions: they would not survive a kill; use an idempotent producer",
			transactional, kmsg.InitProducerID, kmsg.AddPartitionsToTxn, kmsg.AddOffsetsToTxn, kmsg.TxnOffsetCommit, kmsg.EndTxn, kmsg.Produce),
		g.refuse(codeUnknownServerError, "a write to the disk has failed before: begin with a new producer",
			func(kmsg.Request) bool { return g.failed.Load() }, kmsg.Produce),
		g.refuse(codeStorage, fmt.Sprintf("the disk of the embedded broker has less than %d MiB free: free space, it goes on by itself", g.floor.Load()>>20),
			func(kmsg.Request) bool { return g.lowNow() }, kmsg.Produce),
		g.refuse(codeNotEnoughReplicas, "the topic is being compacted", g.waits, kmsg.Produce),
		kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, Count: -1, Observe: true, When: g.begin},
	)
}

func (g *guard) refuse(code int16, message string, when func(kmsg.Request) bool, keys ...kmsg.Key) kfake.Fault {
	return kfake.Fault{
		Keys: keys, Count: -1, When: when,
		Err: &kerr.Error{Message: message, Code: code, Retriable: code > 0 && code != codeTxnIDNotAuthorized, Description: message},
	}
}

// transactional says whether a request has to do with a transaction.
func transactional(req kmsg.Request) bool {
	switch r := req.(type) {
	case *kmsg.InitProducerIDRequest:
		return r.TransactionalID != nil
	case *kmsg.ProduceRequest:
		return r.TransactionID != nil
	}
	return true
}

// begin lets writes go on after a failed one: there is a new producer. The old
// one must not, for kfake counts the sequence of a batch as written before it
// writes, and would answer a second attempt with success.
func (g *guard) begin(kmsg.Request) bool {
	g.failed.Store(false)
	return false
}

// hold lets only one producer write to a topic; nil ends that.
func (g *guard) hold(h *held) { g.holds.Store(h) }

// waits says whether a Produce holds a batch for a topic that is held.
func (g *guard) waits(req kmsg.Request) bool {
	h := g.holds.Load()
	r, ok := req.(*kmsg.ProduceRequest)
	if h == nil || !ok {
		return false
	}
	for _, t := range r.Topics {
		if t.Topic != h.topic && t.TopicID != h.id {
			continue
		}
		for _, p := range t.Partitions {
			if producerOf(p.Records) != h.except {
				return true
			}
		}
	}
	return false
}

// producerOf returns the producer id of a record batch (bytes 43 to 50 of
// format 2), -1 if there is none.
func producerOf(batch []byte) int64 {
	if len(batch) < 51 {
		return -1
	}
	return int64(binary.BigEndian.Uint64(batch[43:]))
}

// lowNow is low for a Produce; it logs when that changes.
func (g *guard) lowNow() bool {
	free, low := g.low()
	if g.full.Swap(low) == low {
		return low
	}
	if low {
		g.log.Warn("embedded broker: disk is nearly full, writes are refused until there is space", "dir", g.dir, "free", free, "floor", g.floor.Load())
	} else {
		g.log.Info("embedded broker: disk has space again", "dir", g.dir, "free", free)
	}
	return low
}

// low returns the free bytes of the disk and whether they are too few. If that
// cannot be found out nothing is written.
func (g *guard) low() (free int64, low bool) {
	floor := g.floor.Load()
	if floor < 1 {
		return 0, false
	}
	var s syscall.Statfs_t
	if err := syscall.Statfs(g.dir, &s); err != nil {
		return 0, true
	}
	free = int64(s.Bavail) * int64(s.Bsize)
	return free, free < floor
}

// Logf takes kfake's log. A batch that could not be written is among it.
func (g *guard) Logf(level kfake.LogLevel, format string, args ...any) {
	if level > kfake.LogLevelWarn || level == kfake.LogLevelNone {
		return
	}
	text := fmt.Sprintf(format, args...)
	if strings.HasPrefix(format, "persist batch ") {
		g.failed.Store(true)
	}
	g.log.Warn("embedded broker: " + text)
}
