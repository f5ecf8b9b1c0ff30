package app

import (
	"context"
	"sync"
	"time"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/audit"
)

// resting is where parts wait that have stopped for good while others of the process work:
// a person may lead them on without ending the others. When nobody works any more, all end.
type resting struct {
	mu      sync.Mutex
	working int
	parts   map[string]chan struct{} // by the supervisor's name; closed: start again
	over    chan struct{}            // nobody works any more
}

func (r *resting) begin(parts int) {
	r.working, r.parts, r.over = parts, make(map[string]chan struct{}), make(chan struct{})
}

// rest waits, and returns whether the part is to be started again.
func (r *resting) rest(ctx context.Context, name string) bool {
	r.mu.Lock()
	r.working--
	if r.working == 0 {
		close(r.over)
	}
	woken, over := make(chan struct{}), r.over
	r.parts[name] = woken
	r.mu.Unlock()
	select {
	case <-woken: // which has counted it as working
		return true
	case <-over:
	case <-ctx.Done():
	}
	return false
}

// wake has a part start again, or with "" all that rest.
func (r *resting) wake(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.working == 0 {
		return // they are ending
	}
	for part, woken := range r.parts {
		if name == "" || name == part {
			r.working++
			delete(r.parts, part)
			close(woken)
		}
	}
}

// any says whether a part rests.
func (r *resting) any() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.parts) > 0 && r.working > 0
}

// heedEvery is how often the audit log is looked at while a part rests.
const heedEvery = time.Second

// heed has parts that rest start again when the audit log says that a decision about them was
// carried out, until ctx ends. A decision that was carried out just before a part came to rest
// may have it start once more than needed.
func (a *app) heed(ctx context.Context) {
	var log *audit.Log // what the process has seen of it
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(heedEvery):
		}
		if log != nil && !a.resting.any() {
			continue
		}
		known := 0
		var err error
		first := log == nil
		if first {
			log, err = audit.Read(ctx, a.broker.Client)
			known = len(log.Entries)
		} else {
			known = len(log.Entries)
			err = log.More(ctx, a.broker.Client)
		}
		for _, e := range log.Entries[known:] {
			if e.Phase == audit.Done {
				a.resting.wake(e.Of)
			}
		}
		if err == nil {
			continue
		}
		a.opts.Log.Debug("could not read the audit log, will try again", "error", err)
		// Who has read before goes on where they were, or what came meanwhile would be no news;
		// unless the log is another one. A first reading that finds it broken ends there.
		if first != audit.IsBroken(err) {
			log = nil
		}
	}
}
