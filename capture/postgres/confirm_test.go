package postgres

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

func TestStatusBytes(t *testing.T) {
	for ask, last := range map[bool]byte{false: 0, true: 1} {
		b := appendStatus(nil, 0x1122, 0x11, time.UnixMicro(postgresEpoch+5), ask)
		want := message('d', uint32(38), byte('r'), uint64(0x1122), uint64(0x11), uint64(0x11), uint64(5), last)
		if string(b) != string(want) || len(b) != statusLen {
			t.Errorf("%x", b)
		}
	}
}

// status is one standby status update as the server sees it.
type status struct {
	received, durable uint64
	at                time.Time
}

// statuses reads the updates that are sent to a connection.
func statuses(conn net.Conn) <-chan status {
	out := make(chan status, 100)
	go func() {
		defer close(out)
		for {
			b := make([]byte, statusLen)
			if _, err := io.ReadFull(conn, b); err != nil {
				return
			}
			out <- status{binary.BigEndian.Uint64(b[6:]), binary.BigEndian.Uint64(b[14:]), time.Now()}
		}
	}()
	return out
}

func TestConfirmation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		c := newConfirmation()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.run(ctx, ours, 10*time.Second) }()
		got := statuses(theirs)
		begin := time.Now()
		want := func(received, durable uint64, after time.Duration) {
			t.Helper()
			s := <-got
			if s.received != received || s.durable != durable || s.at.Sub(begin) != after {
				t.Errorf("got %d, %d after %s; want %d, %d after %s", s.received, s.durable, s.at.Sub(begin), received, durable, after)
			}
		}
		c.floor.Store(90)
		c.raise(80)
		c.received.Store(500)
		want(500, 0, 10*time.Second) // nothing is durable: nothing is confirmed
		c.raise(100)
		c.raise(200)
		c.raise(150)
		want(500, 200, 10*time.Second+confirmGap)
		c.raise(200) // not fresh
		c.repeat()
		want(500, 200, 10*time.Second+confirmGap)
		c.raise(300)
		synctest.Wait()
		c.repeat() // does not wait for the gap
		want(500, 300, 10*time.Second+confirmGap)
		c.raise(600)
		cancel()
		want(600, 600, 10*time.Second+confirmGap) // never less received than durable
		if err := <-ended; err != nil {
			t.Error(err)
		}
		theirs.Close()
	})
}

func TestConfirmationEndsWhenTheConnectionBreaks(t *testing.T) {
	ours, theirs := net.Pipe()
	theirs.Close()
	c := newConfirmation()
	c.raise(5)
	if err := c.run(t.Context(), ours, time.Hour); err == nil {
		t.Error("no error")
	}
}

// Keepalives: what is in flight decides what they mean.
func TestKeepalives(t *testing.T) {
	table := ordersTable(identityDefault)
	r := newRecorder(t)
	s := newTestStream(t, r, table)
	ctx := t.Context()
	keepalive := func(end uint64, asked bool) {
		t.Helper()
		if err := s.message(ctx, 'd', keepaliveMessage(end, asked)); err != nil {
			t.Fatal(err)
		}
	}
	urgent := func() bool {
		select {
		case <-s.src.confirm.urgent:
			return true
		default:
			return false
		}
	}
	keepalive(100, false)
	if s.pos != 100 || r.idles != 0 || s.src.confirm.received.Load() != 100 {
		t.Errorf("pos %d, %d idles", s.pos, r.idles)
	}
	keepalive(110, true)
	if r.idles != 1 || r.pos.Offset != 110 || urgent() {
		t.Errorf("asked: %d idles at %d", r.idles, r.pos.Offset)
	}
	s.src.Confirm(r.pos)
	keepalive(110, true)
	if r.idles != 2 || !urgent() {
		t.Errorf("asked for what is durable: %d idles", r.idles)
	}
	if err := send(ctx, s, table.message(), beginMessage(5000, 0, 1)); err != nil {
		t.Fatal(err)
	}
	keepalive(6000, false)
	if s.pos != 110 || urgent() {
		t.Errorf("in flight: pos %d", s.pos)
	}
	keepalive(6000, true)
	if s.pos != 110 || r.idles != 2 || !urgent() {
		t.Errorf("asked in flight: pos %d, %d idles", s.pos, r.idles)
	}
	if err := send(ctx, s, commitMessage(5000, 5050)); err != nil {
		t.Fatal(err)
	}
	if s.pos != 5050 {
		t.Errorf("pos %d", s.pos)
	}
	keepalive(90, false)
	if s.pos != 5050 {
		t.Errorf("an old keepalive moved the position to %d", s.pos)
	}
}
