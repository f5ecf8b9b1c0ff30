package capture

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/tailrace/tailrace/capture/backfill"
	"github.com/tailrace/tailrace/schemas"
)

// engine reads tables in chunks while the log is tailed. What it decides it decides in
// step, in the source's goroutine, between two transactions; other goroutines read chunks,
// look at tables and listen to commands, and put what comes of it into the inbox.
type engine struct {
	p     *pipeline
	src   Source
	log   *slog.Logger
	inbox *inbox

	chunker   Chunker
	tasks     chan *chunkRead            // to the goroutines that read
	looks     chan func(context.Context) // to those that look at tables
	work      sync.WaitGroup             // all goroutines of the engine
	limit     int                        // chunks that may be under way: their rows are in memory
	underWay  int
	stepping  bool
	steppedAt int64 // milliseconds

	known    map[string]*Backfill // all that the state has
	ended    map[string]*job      // those that have failed, and can be resumed
	jobs     []*job               // those that have not ended, in the order of their requests
	taken    takenState
	control  controlState
	touched  map[string]*Backfill         // changed since they were saved
	trackers map[string]*backfill.Tracker // by the topic of the table's changes
	commit   backfill.Commit              // of the source transaction in flight

	spare []*backfill.Rows
}

// What is done between two transactions at most.
const (
	stepOne = 1       // chunk written when there is more to read of the log
	stepAll = 1 << 20 // when there is not
)

// newEngine makes the engine of a run that starts at the position of cut g.
func newEngine(p *pipeline, src Source, s *state, g uint64) *engine {
	e := &engine{p: p, src: src, log: p.log, known: s.backfills, taken: s.taken, control: s.control,
		inbox:   &inbox{wake: func() { src.Wake(Position{}) }},
		touched: make(map[string]*Backfill), ended: make(map[string]*job), trackers: make(map[string]*backfill.Tracker)}
	n := p.cfg.Backfill.readers()
	e.limit = 2*n + 2
	e.tasks = make(chan *chunkRead, e.limit)
	e.looks = make(chan func(context.Context), e.limit)
	for _, b := range s.listBackfills() {
		j := newJob(e.known[b.ID], s.chunks[b.ID], g)
		for _, r := range j.spans {
			if r.stale {
				p.prog.touchRange(&r.ranged)
			}
		}
		switch {
		case b.State == BackfillFailed:
			e.ended[b.ID] = j
		case !b.State.Ended():
			e.jobs = append(e.jobs, j)
		}
		p.cfg.Monitor.backfill(&b)
	}
	return e
}

// start lets the engine's goroutines work until ctx ends. stop waits for them.
func (e *engine) start(ctx context.Context) (err error) {
	if e.chunker, err = e.src.Chunker(ctx); err != nil {
		return err
	}
	for range e.p.cfg.Backfill.readers() {
		e.work.Go(func() { e.read(ctx) })
	}
	for range e.turns() {
		e.work.Go(func() { e.look(ctx) })
	}
	e.work.Go(func() { e.listen(ctx, e.control.Next) })
	e.work.Go(func() { e.watch(ctx) })
	return nil
}

// look looks at tables until ctx ends.
func (e *engine) look(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case at := <-e.looks:
			at(ctx)
		}
	}
}

// turns is how many jobs go on at the same time.
func (e *engine) turns() int { return e.p.cfg.Backfill.readers() + 1 }

func (e *engine) stop() error {
	e.work.Wait()
	if e.chunker == nil {
		return nil
	}
	return e.chunker.Close()
}

// step does what there is to do between two transactions, and writes at most n chunks.
func (e *engine) step(ctx context.Context, n int) error {
	if e.stepping || len(e.p.prog.ahead) > 0 {
		return nil
	}
	e.stepping = true
	defer func() { e.stepping = false }()
	for _, do := range e.inbox.take() {
		if err := do(ctx); err != nil {
			return err
		}
	}
	if len(e.jobs) == 0 {
		return nil
	}
	if err := e.write(ctx, n); err != nil {
		return err
	}
	return e.proceed(ctx)
}

// due says whether there may be something to do for step, at next to no cost: at most once a
// millisecond, by the clock of the transactions, unless something has come in.
func (e *engine) due(now int64) bool {
	if e.inbox.count.Load() == 0 && (len(e.jobs) == 0 || e.steppedAt == now) {
		return false
	}
	e.steppedAt = now
	return true
}

// begin notes which commit the log shows.
func (e *engine) begin(tx *Tx) {
	if len(e.trackers) == 0 {
		return
	}
	e.commit = backfill.Commit{File: tx.File, Pos: tx.Pos, XID: tx.XID}
	for _, t := range e.trackers {
		t.Shown(&e.commit)
	}
}

// change notes a change that the log shows. first: the transaction has changed the table
// for the first time.
func (e *engine) change(t *backfill.Tracker, c *Change, first bool) {
	if first {
		t.Begin(e.commit)
	}
	switch {
	case c.Op == 0: // the tombstone of a delete that was noted
	case c.Op == 't':
		t.Truncated()
	case c.Part:
		t.ChangedPart(c.Key)
	default:
		t.Changed(c.Key)
	}
}

// tracker returns the tracker of a table's topic; nil: nobody reads the table.
func (e *engine) tracker(topic string) *backfill.Tracker {
	if e == nil {
		return nil
	}
	return e.trackers[topic]
}

// topicOf returns the topic of a table's changes.
func (e *engine) topicOf(namespace, name string) string {
	return schemas.TopicName(e.p.cfg.Naming.Prefix, namespace, name)
}

// inbox holds what is to be done in the source's goroutine. Anybody may post.
type inbox struct {
	mu    sync.Mutex
	list  []func(context.Context) error
	count atomic.Int32
	wake  func() // makes the source look; never blocks
}

func (i *inbox) post(do func(context.Context) error) {
	i.mu.Lock()
	i.list = append(i.list, do)
	i.count.Store(int32(len(i.list)))
	i.mu.Unlock()
	i.wake()
}

func (i *inbox) take() []func(context.Context) error {
	if i.count.Load() == 0 {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	list := i.list
	i.list = nil
	i.count.Store(0)
	return list
}
