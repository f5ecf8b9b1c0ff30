package postgres

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// socket is the connection under a replication session, below TLS. Until it is armed it
// only passes calls on. Then Read serves one goroutine that wants to know when it is about
// to block, and takes less of the machine when there is a backlog:
//
// The server sends each change as a segment of its own. A reader that wakes for every one
// costs both sides more than the change itself. So while much arrives, Read waits until
// lowWater bytes are there, without being woken in between (SO_RCVLOWAT), but no longer than
// coalesceFor, or coalesceBehind while the log is read with a delay anyway. When little
// arrives it returns what comes at once.
type socket struct {
	net.Conn
	raw syscall.RawConn

	armed     bool
	wait      func() // called before Read blocks
	resume    func() // called after it
	idleAfter time.Duration
	stopped   atomic.Bool // by interrupt
	woken     atomic.Bool // by wake

	behind  bool // what is read was committed some time ago
	drained bool // the last read took all there was
	meter   meter
	low     bool // the low-water mark is set
}

const (
	lowWater       = 128 << 10
	coalesceFor    = time.Millisecond
	coalesceBehind = 10 * time.Millisecond
	meterWindow    = 4 * time.Millisecond
	busyFrom       = 4 << 20 // bytes a second
	busyUntil      = 2 << 20
	eagerAtLeast   = 1 // SO_RCVLOWAT's default
)

func newSocket(c net.Conn) *socket {
	s := &socket{Conn: c}
	if sc, ok := c.(syscall.Conn); ok {
		s.raw, _ = sc.SyscallConn() // without it Read is eager
	}
	return s
}

// arm makes Read call wait before it blocks and resume after it, and fail with
// os.ErrDeadlineExceeded when nothing came for idleAfter.
func (s *socket) arm(wait, resume func(), idleAfter time.Duration) {
	s.wait, s.resume, s.idleAfter, s.armed = wait, resume, idleAfter, true
	s.meter.begin = time.Now()
}

// interrupt makes this and all further reads fail with context.Canceled. It may be called
// from any goroutine.
//
// Read sets a deadline before it blocks, and looks at stopped after that. Either it sees
// stopped, or stopped was set later: then so was the deadline in the past.
func (s *socket) interrupt() {
	s.stopped.Store(true)
	_ = s.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed connection, which ends reads too
}

// wake makes a Read that blocks, or else the next that would, fail with
// os.ErrDeadlineExceeded. It may be called from any goroutine.
//
// As with interrupt, Read looks at woken after it has set its deadline. When it fails it
// forgets what came in between: whoever reads looks for what is wanted after that.
func (s *socket) wake() {
	s.woken.Store(true)
	_ = s.SetReadDeadline(time.Unix(1, 0))
}

// wakes says whether Read is not to block.
func (s *socket) wakes(err error) error {
	if err == nil && s.woken.Load() {
		err = os.ErrDeadlineExceeded
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.woken.Store(false)
	}
	return err
}

// Read reads at least one byte.
func (s *socket) Read(p []byte) (n int, err error) {
	if !s.armed {
		return s.Conn.Read(p)
	}
	if s.raw == nil {
		return s.readBlocking(p)
	}
	if !s.drained || !s.meter.busy {
		if n, err = s.readNow(p); n > 0 || err != nil {
			return n, err
		}
	}
	s.wait()
	defer s.resume()
	if s.meter.busy {
		if err := s.coalesce(); err != nil {
			return 0, err
		}
		if n, err = s.readNow(p); n > 0 || err != nil {
			return n, err
		}
	}
	return s.readEager(p)
}

// readBlocking is for connections without a descriptor.
func (s *socket) readBlocking(p []byte) (int, error) {
	s.wait()
	defer s.resume()
	if err := s.wakes(s.deadline(s.idleAfter)); err != nil {
		return 0, err
	}
	n, err := s.Conn.Read(p)
	if n == 0 {
		err = s.wakes(err)
	}
	return n, s.orStopped(err)
}

// readNow reads what is there; n is 0 without an error if that is nothing.
func (s *socket) readNow(p []byte) (n int, err error) {
	// A deadline that has passed would keep the descriptor from being tried.
	if err := s.deadline(s.idleAfter); err != nil {
		return 0, err
	}
	var failed error
	if err := s.raw.Read(func(fd uintptr) bool {
		n, failed = readDescriptor(fd, p)
		return true
	}); err != nil {
		return 0, s.orStopped(err)
	}
	return s.took(n, len(p)), s.orStopped(failed)
}

// readEager blocks until something comes.
func (s *socket) readEager(p []byte) (n int, err error) {
	if err := s.setLow(false); err != nil {
		return 0, err
	}
	if err := s.wakes(s.deadline(s.idleAfter)); err != nil {
		return 0, err
	}
	var failed error
	err = s.raw.Read(func(fd uintptr) bool {
		n, failed = readDescriptor(fd, p)
		return n > 0 || failed != nil
	})
	if err == nil {
		err = failed
	} else {
		err = s.wakes(err)
	}
	return s.took(n, len(p)), s.orStopped(err)
}

// coalesce waits until the low-water mark is reached or its time is over.
func (s *socket) coalesce() error {
	if err := s.setLow(true); err != nil {
		return err
	}
	d := coalesceFor
	if s.behind {
		d = coalesceBehind
	}
	if err := s.deadline(d); err != nil {
		return err
	}
	err := s.raw.Read(func(fd uintptr) bool { return available(fd) >= lowWater })
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return s.orStopped(err)
}

// took notes a read of n bytes where there was room for size.
func (s *socket) took(n, size int) int {
	s.drained = n < size
	s.meter.add(n)
	return n
}

func (s *socket) deadline(d time.Duration) error {
	if err := s.SetReadDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	return s.orStopped(nil)
}

func (s *socket) setLow(low bool) error {
	if s.low == low {
		return nil
	}
	s.low = low
	n := eagerAtLeast
	if low {
		n = lowWater
	}
	var failed error
	err := s.raw.Control(func(fd uintptr) { failed = setLowWater(fd, n) })
	return errors.Join(err, failed)
}

func (s *socket) orStopped(err error) error {
	if s.stopped.Load() {
		return context.Canceled
	}
	return err
}

// meter tells from what was read lately whether there is a backlog or much traffic.
type meter struct {
	begin time.Time
	bytes int
	busy  bool
}

func (m *meter) add(n int) {
	m.bytes += n
	now := time.Now()
	d := now.Sub(m.begin)
	if d < meterWindow {
		return
	}
	rate := float64(m.bytes) / d.Seconds()
	m.busy = rate >= busyFrom || m.busy && rate >= busyUntil
	m.begin, m.bytes = now, 0
}

// readDescriptor reads without blocking; nothing there is 0 bytes without an error.
func readDescriptor(fd uintptr, p []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), p)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return 0, nil
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		}
		return n, nil
	}
}
