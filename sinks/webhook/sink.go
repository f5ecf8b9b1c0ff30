package webhook

import (
	"cmp"
	"context"
	"log/slog"
	"sync/atomic"

	"github.com/tailrace/tailrace/sinks"
)

// Sink delivers changes to one target. It serves one run.
type Sink struct {
	cfg    Config
	client *client
	writer writer
	told   atomic.Bool // the log knows of trouble with the batch
}

var _ sinks.Sink = (*Sink)(nil)

// New makes a sink. It checks the configuration and connects to nothing.
func New(cfg Config) (*Sink, error) {
	to, problems := cfg.compile()
	switch {
	case len(problems) > 0:
		return nil, misconfigured(problems[0].Hint, "webhook %s %s", problems[0].Field, problems[0].Message)
	case cfg.Name == "" || cfg.Positions == nil:
		return nil, misconfigured("this is a mistake in the program that makes the sink", "webhook sink without a name or positions")
	}
	cfg.Mode = cmp.Or(cfg.Mode, Binary)
	cfg.Concurrency = cmp.Or(cfg.Concurrency, DefaultConcurrency)
	cfg.Timeout = cmp.Or(cfg.Timeout, DefaultTimeout)
	cfg.UserAgent = cmp.Or(cfg.UserAgent, "tailrace")
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Sink{cfg: cfg}
	s.client = newClient(&s.cfg, to, to.guard.dialer())
	s.writer = writer{cfg: &s.cfg, to: to}
	return s, nil
}

// Take implements sinks.Sink: the positions are in a topic.
func (s *Sink) Take(ctx context.Context, ps []sinks.Partition) (map[sinks.Partition]sinks.Position, error) {
	return s.cfg.Positions.Take(ctx, ps)
}

// Apply implements sinks.Sink, as far as a target without transactions can: when it returns
// nil, the target has acknowledged every change and the positions are durable. After an
// error some of the changes may have been delivered; they are delivered again, with the same
// ids.
func (s *Sink) Apply(ctx context.Context, b *sinks.Batch) error {
	if b.More {
		return misconfigured("use mode keys", "a webhook cannot keep a source transaction together")
	}
	s.told.Store(false)
	for _, changes := range segments(b.Changes) {
		events, err := s.events(changes)
		if err != nil {
			return err
		}
		if err := s.deliver(ctx, events); err != nil {
			return err
		}
	}
	sinks.Failpoint("sink-before-commit")
	if err := s.cfg.Positions.Write(ctx, b.Positions); err != nil {
		return err
	}
	sinks.Failpoint("sink-after-commit")
	return nil
}

// events makes the events of changes.
func (s *Sink) events(changes []*sinks.Change) ([]*event, error) {
	events := make([]*event, 0, len(changes))
	for _, c := range changes {
		e, err := s.writer.event(c)
		if err != nil {
			return nil, err
		}
		if e != nil {
			events = append(events, e)
		}
	}
	return events, nil
}

// troubled is after how many failed attempts the log is told.
const troubled = 3

// failed is called when an attempt has failed and is to be repeated.
func (s *Sink) failed(attempt int, err error) {
	if attempt >= troubled && s.told.CompareAndSwap(false, true) {
		s.cfg.Log.Warn("the target does not take a change; it is tried again", "attempts", attempt, "why", err)
	}
}

// Close implements sinks.Sink.
func (s *Sink) Close() error {
	s.client.close()
	return nil
}
