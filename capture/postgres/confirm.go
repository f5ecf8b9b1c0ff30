package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// confirmation is what the server is told: how far the log was received, and how far what
// it said is durable. Two things, never one: a position that was only received must not
// let the server forget.
type confirmation struct {
	received atomic.Uint64
	durable  atomic.Uint64 // 0: nothing was confirmed yet; the server then keeps what it has
	floor    atomic.Uint64 // where the run began: a slot must never be moved back

	fresh  chan struct{} // durable has risen
	urgent chan struct{} // the server wants an answer now
	asking chan struct{} // we want one of the server
}

func newConfirmation() *confirmation {
	return &confirmation{fresh: make(chan struct{}, 1), urgent: make(chan struct{}, 1), asking: make(chan struct{}, 1)}
}

// raise notes that everything up to lsn is durable. It never blocks. Positions only rise:
// one that comes late changes nothing.
func (c *confirmation) raise(lsn uint64) {
	for {
		old := c.durable.Load()
		if lsn <= old || lsn < c.floor.Load() {
			return
		}
		if c.durable.CompareAndSwap(old, lsn) {
			break
		}
	}
	signal(c.fresh)
}

// repeat has the status sent at once, also if it is what was sent before.
func (c *confirmation) repeat() { signal(c.urgent) }

// ask has the status sent at once, with the question how far the server is.
func (c *confirmation) ask() { signal(c.asking) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // one is waiting already
	}
}

const (
	confirmGap   = 10 * time.Millisecond // between two statuses that nobody asked for
	writeTimeout = 30 * time.Second
)

// run tells the server, until ctx ends: every interval, when what is durable has risen
// (at most once in confirmGap), and at once when the server asks or is to be asked. It is the connection's
// only writer. When ctx ends it says once more what is durable.
func (c *confirmation) run(ctx context.Context, conn net.Conn, interval time.Duration) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return c.send(conn)
		case <-c.asking:
			if err := c.write(conn, true); err != nil {
				return err
			}
			continue
		case <-c.urgent:
		case <-tick.C:
		case <-c.fresh:
			if err := c.pause(ctx); err != nil {
				continue
			}
		}
		if err := c.send(conn); err != nil {
			return err
		}
	}
}

// pause gathers confirmations that follow one another closely.
func (c *confirmation) pause(ctx context.Context) error {
	gap := time.NewTimer(confirmGap)
	defer gap.Stop()
	select {
	case <-gap.C:
	case <-c.urgent:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

func (c *confirmation) send(conn net.Conn) error { return c.write(conn, false) }

func (c *confirmation) write(conn net.Conn, ask bool) error {
	durable := c.durable.Load()
	var room [statusLen]byte
	b := appendStatus(room[:0], max(c.received.Load(), durable), durable, time.Now(), ask)
	if err := conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("confirm %s: %w", lsnText(durable), err)
	}
	if _, err := conn.Write(b); err != nil {
		return fmt.Errorf("confirm %s: %w", lsnText(durable), err)
	}
	return nil
}

const statusLen = 1 + 4 + 1 + 8*4 + 1

// appendStatus appends a CopyData message with a standby status update:
//
//	'd' Int32 length
//	'r' Int64 written · Int64 flushed · Int64 applied, 0 for not known
//	    Int64 microseconds since 2000-01-01 · Byte 1: please answer
//
// Source: PostgreSQL's documentation, "Streaming Replication Protocol".
func appendStatus(dst []byte, received, durable uint64, now time.Time, ask bool) []byte {
	dst = append(dst, 'd')
	dst = binary.BigEndian.AppendUint32(dst, statusLen-1)
	dst = append(dst, 'r')
	dst = binary.BigEndian.AppendUint64(dst, received)
	dst = binary.BigEndian.AppendUint64(dst, durable)
	dst = binary.BigEndian.AppendUint64(dst, durable)
	dst = binary.BigEndian.AppendUint64(dst, uint64(now.UnixMicro()-postgresEpoch))
	if ask {
		return append(dst, 1)
	}
	return append(dst, 0)
}
