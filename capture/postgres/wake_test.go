package postgres

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailrace/tailrace/capture"
)

// As long as somebody waits for more of the log than was read, the server is asked how far
// it is, at most every askGap, and not within a transaction.
func TestWakeAsks(t *testing.T) {
	s := newTestStream(t, newRecorder(t))
	var short []bool
	s.patience = func(b bool) { short = append(short, b) }
	asked := func() bool {
		s.await()
		select {
		case <-s.src.confirm.asking:
			return true
		default:
			return false
		}
	}
	s.pos = 100
	if asked() {
		t.Error("asked for nobody")
	}
	s.src.Wake(capture.Position{Offset: 200})
	s.src.Wake(capture.Position{Offset: 150}) // an older wish
	s.open = true
	if asked() {
		t.Error("asked within a transaction")
	}
	s.open = false
	if !asked() || asked() {
		t.Error("not asked once")
	}
	s.now += askGap.Microseconds()
	if !asked() {
		t.Error("not asked again")
	}
	s.now += askGap.Microseconds()
	if s.pos = 200; asked() {
		t.Error("asked for what was read")
	}
	if len(short) != 2 || !short[0] || short[1] {
		t.Errorf("the reader was told %v", short)
	}
}

// Idle is called once for a Wake, as soon as no transaction is in flight.
func TestWakeIdle(t *testing.T) {
	r := newRecorder(t)
	s := newTestStream(t, r)
	s.patience = func(bool) {}
	s.frames = newFrames(nil)
	idles := func(want int) {
		t.Helper()
		for range 2 {
			if err := errors.Join(s.drain(t.Context()), s.tick(t.Context())); err != nil {
				t.Fatal(err)
			}
		}
		if r.idles != want {
			t.Errorf("%d calls of Idle, want %d", r.idles, want)
		}
	}
	s.idleAt = s.now
	idles(0)
	s.src.Wake(capture.Position{})
	idles(1)
	s.open = true
	s.src.Wake(capture.Position{})
	idles(1)
	s.open = false
	idles(2)
	s.now += idleAfter.Microseconds()
	idles(3)
}

// A question goes out at once, whatever the status says.
func TestConfirmationAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		c := newConfirmation()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.run(ctx, ours, time.Hour) }()
		begin := time.Now()
		for range 2 {
			c.ask()
			b := make([]byte, statusLen)
			if _, err := theirs.Read(b); err != nil || b[statusLen-1] != 1 || time.Since(begin) != 0 {
				t.Fatalf("%x after %s, %v", b, time.Since(begin), err)
			}
		}
		theirs.Close()
		cancel()
		if err := <-ended; err == nil {
			t.Error("nobody was told")
		}
	})
}

// However a wake and a read meet, the read ends.
func TestSocketWake(t *testing.T) {
	s, peer, _ := socketPair(t, time.Hour)
	b := make([]byte, 10)
	woken := func() {
		t.Helper()
		if n, err := s.Read(b); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%d bytes, %v", n, err)
		}
	}
	s.wake()
	s.wake()
	woken() // before it
	for range 500 {
		var both sync.WaitGroup
		both.Go(s.wake)
		woken()
		both.Wait()
		if s.woken.Load() { // it came between: the next one ends at once
			woken()
		}
	}
	// What is there is read all the same.
	if _, err := peer.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	for {
		n, err := s.Read(b)
		if n == 1 {
			break
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	}
}
