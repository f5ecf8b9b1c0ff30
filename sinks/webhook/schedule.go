package webhook

import (
	"context"
	"errors"

	"github.com/tailrace/tailrace/sinks"
)

// lanes hold events that are to be sent, by key. Those of one key are sent one after the
// other; a key of which something is under way is not ready.
type lanes struct {
	keys  map[string]*lane
	ready []*lane // in the order in which they became ready
	left  int     // events that are not acknowledged
}

type lane struct{ events []*event }

func newLanes(events []*event) *lanes {
	l := &lanes{keys: make(map[string]*lane), left: len(events)}
	for _, e := range events {
		k := l.keys[e.key]
		if k == nil {
			k = new(lane)
			l.keys[e.key] = k
			l.ready = append(l.ready, k)
		}
		k.events = append(k.events, e)
	}
	return l
}

// load is what one request carries: of each of its lanes the first events.
type load struct {
	lanes  []*lane
	counts []int // events of each lane
	events []*event
}

// next takes up to most events from lanes that are ready.
func (l *lanes) next(most int) *load {
	out := &load{}
	for len(l.ready) > 0 && len(out.events) < most {
		k := l.ready[0]
		l.ready = l.ready[1:]
		n := min(most-len(out.events), len(k.events))
		out.lanes, out.counts = append(out.lanes, k), append(out.counts, n)
		out.events = append(out.events, k.events[:n]...)
	}
	return out
}

// done says that a load is acknowledged.
func (l *lanes) done(o *load) {
	for i, k := range o.lanes {
		l.left -= o.counts[i]
		if k.events = k.events[o.counts[i]:]; len(k.events) > 0 {
			l.ready = append(l.ready, k)
		}
	}
}

// deliver sends events, each key in order, several requests at a time, and returns when all
// are acknowledged. After the first error no further request is begun; those that are under
// way are waited for, but not tried again.
func (s *Sink) deliver(ctx context.Context, events []*event) error {
	type outcome struct {
		load *load
		err  error
	}
	l := newLanes(events)
	outcomes := make(chan outcome)
	trying, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	var first error
	for under := 0; ; {
		for first == nil && under < s.cfg.Concurrency && len(l.ready) > 0 {
			o := l.next(max(s.cfg.Batch, 1))
			under++
			go func() { outcomes <- outcome{o, s.sendLoad(ctx, trying, o.events)} }()
		}
		if under == 0 {
			return first
		}
		o := <-outcomes
		under--
		if o.err == nil {
			l.done(o.load)
			continue
		}
		if first == nil {
			first = o.err
			giveUp(errGaveUp)
		}
	}
}

var errGaveUp = errors.New("another change could not be delivered")

// sendLoad sends events in one request. If the target refuses a batch, it is sent event by
// event, to find out which it is.
func (s *Sink) sendLoad(ctx, trying context.Context, events []*event) error {
	r := one(events[0])
	if len(events) > 1 {
		r = several(events)
	}
	err := s.client.send(ctx, trying, r, s.failed)
	var no *refusal
	switch {
	case !errors.As(err, &no):
		return err
	case len(events) == 1:
		return refuse(events[0].change, adviceRefused, no)
	}
	for i := range events {
		if err := s.sendLoad(ctx, trying, events[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

const adviceRefused = "the target does not take this change: look there why; with dead letters it would wait, and others go on"

// segments splits a batch's changes at TRUNCATEs: what is before one is delivered before it,
// what is behind it after it. Those that stand in each partition of a topic are one.
func segments(changes []*sinks.Change) [][]*sinks.Change {
	var out [][]*sinks.Change
	from := 0
	for i := 0; i < len(changes); i++ {
		if changes[i].Op != sinks.OpTruncate {
			continue
		}
		if i > from {
			out = append(out, changes[from:i])
		}
		lowest := changes[i]
		for i+1 < len(changes) && sameTruncate(changes[i+1], lowest) {
			if i++; changes[i].Mark.Row < lowest.Mark.Row {
				lowest = changes[i]
			}
		}
		out = append(out, []*sinks.Change{lowest})
		from = i + 1
	}
	if from < len(changes) {
		out = append(out, changes[from:])
	}
	return out
}

func sameTruncate(a, b *sinks.Change) bool {
	p, q := a.Mark.Place, b.Mark.Place
	return a.Op == sinks.OpTruncate && a.Partition.Topic == b.Partition.Topic && p.Epoch == q.Epoch && p.File == q.File && p.Pos == q.Pos
}
