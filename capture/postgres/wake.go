package postgres

import (
	"sync/atomic"
	"time"

	"github.com/tailrace/tailrace/capture"
)

// wakeup is what others want of the goroutine that reads the log.
type wakeup struct {
	target atomic.Uint64          // somebody waits until the log is read up to here
	idle   atomic.Bool            // the Emitter's Idle is wanted, if nothing is in flight
	socket atomic.Pointer[socket] // that the goroutine reads from; nil until it does
}

// Wake has the Emitter's Idle called soon, if nothing is in flight, else after the
// transaction that is; and until the log has been read up to p it asks the server how far
// that is, since an idle one says nothing by itself. A p that is zero only wakes. It never
// blocks, and may be called from any goroutine.
func (s *Source) Wake(p capture.Position) {
	for {
		old := s.wake.target.Load()
		if p.Offset <= old || s.wake.target.CompareAndSwap(old, p.Offset) {
			break
		}
	}
	s.wake.idle.Store(true)
	if sock := s.wake.socket.Load(); sock != nil {
		sock.wake()
	}
}

// askGap is the time between two questions how far the server is.
const askGap = 15 * time.Millisecond

// await asks how far the server is, if somebody waits for more than was read. It is called
// before each read; within a transaction an answer would say nothing.
func (s *stream) await() {
	behind := !s.open && s.src.wake.target.Load() > s.pos
	if behind != s.awaiting {
		s.awaiting = behind
		s.patience(behind)
	}
	if behind && s.now-s.askedAt >= askGap.Microseconds() {
		s.askedAt = s.now
		s.src.confirm.ask()
	}
}
