package capture

import (
	"context"
	"fmt"
	"time"

	"github.com/tailrace/tailrace/capture/backfill"
)

// chunkRead is one chunk under way: asked for, read, or armed and waiting for the log.
type chunkRead struct {
	job        *job
	span       *span
	generation int // of the span
	tracker    *backfill.Tracker
	window     *backfill.Window
	req        ChunkRead
	chunk      backfill.Chunk
	version    *ChunkVersion
}

// againPause is how long a chunk that was of no use is left alone, before it is read again.
const againPause = 50 * time.Millisecond

// dispatch asks for the next chunks of a job: of its first ranges that are not read, one of
// each at a time, so that what is read side by side is not scattered over the whole table.
func (e *engine) dispatch(j *job, now time.Time) {
	side := e.p.cfg.Backfill.readers() + 1
	for _, s := range j.spans {
		if s.whole || s.now.Done {
			continue
		}
		if side--; side < 0 || e.underWay >= e.limit || now.Before(j.rateAt) {
			return
		}
		if !s.reading && !now.Before(s.retryAt) {
			e.ask(j, s, now)
		}
	}
}

// ask opens a window and has a chunk read.
func (e *engine) ask(j *job, s *span, now time.Time) {
	r := &chunkRead{job: j, span: s, generation: s.generation, tracker: j.tracker, window: j.tracker.Open()}
	limit := j.size.Rows()
	if rate := e.p.cfg.Backfill.rate(j.b.Rate); rate > 0 {
		limit = min(limit, max(rate/4, 1))
		j.rateAt = later(j.rateAt, now).Add(time.Duration(limit) * time.Second / time.Duration(rate))
	}
	table := j.table
	r.req = ChunkRead{Table: &table, Plan: j.plan, Range: backfill.Range{After: s.next, To: s.now.To},
		Limit: limit, MaxBytes: j.size.MaxBytes(), Route: e.route}
	r.chunk.Rows = e.rows()
	s.reading = true
	e.underWay++
	e.tasks <- r // it has room for all that may be under way
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// read reads chunks until ctx ends.
func (e *engine) read(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-e.tasks:
			v, err := e.chunker.Read(ctx, &r.req, &r.chunk)
			failpoint("chunk-read")
			e.inbox.post(func(ctx context.Context) error { return e.arrived(ctx, r, v, err) })
			if err == nil {
				e.src.Wake(Position{File: r.chunk.End.File, Offset: r.chunk.End.Offset})
			}
		}
	}
}

// route has the log's goroutine say under what ids the rows of a table version are written.
func (e *engine) route(ctx context.Context, v *TableVersion) (*Route, error) {
	type answer struct {
		route *Route
		err   error
	}
	said := make(chan answer, 1)
	e.inbox.post(func(ctx context.Context) error {
		r, err := e.table(ctx, v)
		said <- answer{r, err}
		if err != nil && ctx.Err() == nil {
			return nil // it is the chunk's
		}
		return err
	})
	select {
	case a := <-said:
		return a.route, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// table takes a version of a table between two transactions.
func (e *engine) table(ctx context.Context, v *TableVersion) (*Route, error) {
	if err := e.p.beginRead("table"); err != nil {
		return nil, err
	}
	route, err := e.p.Table(ctx, v)
	if err != nil {
		e.p.open = false // nothing was written in it
		return nil, err
	}
	return route, e.p.Commit(ctx, e.p.prog.seen)
}

// arrived takes a chunk that was read, or why it could not be.
func (e *engine) arrived(ctx context.Context, r *chunkRead, v *ChunkVersion, err error) error {
	j, s := r.job, r.span
	if r.generation != s.generation || j.tracker != r.tracker { // its range was rewound meanwhile
		e.release(r)
		if r.generation == s.generation {
			s.reading = false
		}
		return nil
	}
	s.reading = false
	if err != nil {
		e.release(r)
		j.size.Late()
		return e.failed(ctx, j, fmt.Errorf("read table %s: %w", j.b.Table(), err))
	}
	j.failures = 0
	j.size.Took(r.chunk.Rows.Len(), r.chunk.Rows.Bytes(), v.Took)
	r.version = v
	if mutant("seen-all") {
		r.chunk.Seen = everything{}
	}
	if !r.tracker.Arm(r.window, &r.chunk, v.Log) && !mutant("ignore-arm") {
		e.log.Debug("a chunk is read again", "backfill", j.b.ID, "range", s.n, "waits_for", r.tracker.Waiting())
		s.retryAt = time.Now().Add(againPause)
		e.release(r)
		return nil
	}
	s.armed = append(s.armed, r)
	s.whole = r.chunk.Whole
	if r.chunk.Last != nil {
		s.next = r.chunk.Last
	}
	return nil
}

// release gives up a chunk.
func (e *engine) release(r *chunkRead) {
	r.tracker.Close(r.window)
	e.underWay--
	e.spare = append(e.spare, r.chunk.Rows)
	r.chunk.Rows = nil
}

// rows returns empty Rows.
func (e *engine) rows() *backfill.Rows {
	k := len(e.spare)
	if k == 0 {
		return new(backfill.Rows)
	}
	r := e.spare[k-1]
	e.spare = e.spare[:k-1]
	r.Reset()
	return r
}

// rewind gives up what is under way of a range: it is read again from what is written.
func (e *engine) rewind(j *job, s *span) {
	for _, r := range s.armed {
		e.release(r)
	}
	s.armed, s.reading = nil, false
	s.generation++
	s.next, s.whole = s.now.After, s.now.Done
}

// write writes the chunks whose time has come, at most n: those of a range in their order,
// each when the log has been read beyond what its statement saw.
func (e *engine) write(ctx context.Context, n int) error {
	for _, j := range e.jobs {
		for _, s := range j.spans {
			for len(s.armed) > 0 {
				r := s.armed[0]
				seen := e.p.prog.seen
				if !r.chunk.Written(backfill.Place{File: seen.File, Offset: seen.Offset}) && !mutant("write-at-once") {
					break
				}
				if !e.usable(j, r) {
					e.rewind(j, s)
					break
				}
				if n--; n < 0 {
					e.inbox.wake()
					return nil
				}
				if err := e.writeChunk(ctx, r); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// tornAt is after how many readings in vain an operator is told.
const tornAt = 20

// usable says whether a chunk that was read can be written. It cannot if the table is another
// by now, or if a change came by of which the log has only a part: the row as the chunk has
// it must not be written after that, and without it the values that the change left alone
// would be nowhere. Such chunks are made smaller, so that their rows are left alone for as
// long as the reading takes.
func (e *engine) usable(j *job, r *chunkRead) bool {
	torn := r.window.Torn()
	if torn > 0 {
		j.size.Late()
		if j.torn++; j.torn%tornAt == 0 {
			e.log.Warn("rows are read in vain: they change all the time, and the log leaves out values that a change does not touch",
				"backfill", j.b.ID, "table", j.b.Table(), "times", j.torn, "hint", "ALTER TABLE … REPLICA IDENTITY FULL, while the backfill runs")
		}
	}
	return torn == 0 && r.window.Holds(r.version.Log)
}

// writeChunk writes the rows of a chunk that are left as a transaction of their own, with
// the progress that they make.
func (e *engine) writeChunk(ctx context.Context, r *chunkRead) error {
	j, s := r.job, r.span
	if mutant("progress-first") {
		e.p.prog.advance(&s.ranged, &r.chunk)
		for range 3 { // then the first is durable
			if err := e.p.push(ctx, e.p.cutGroup()); err != nil {
				return err
			}
		}
	}
	if err := e.p.beginRead(j.b.ID); err != nil {
		return err
	}
	route := *r.version.Route
	if j.b.ToTopic != "" {
		route.topic = e.p.routes.topics[j.b.ToTopic]
	}
	change := Change{Route: &route, Op: 'r'}
	for key, value := range r.chunk.Rows.All() {
		if mutant("chunk-lost") && s.n%2 == 0 {
			break
		}
		change.Key, change.Value = key, value
		if err := e.p.Change(ctx, &change); err != nil {
			return err
		}
	}
	failpoint("chunk-written")
	e.p.prog.advance(&s.ranged, &r.chunk)
	s.armed = s.armed[1:]
	j.torn = 0
	e.release(r)
	j.b.Rows, j.b.Read = j.progress()
	e.p.cfg.Monitor.backfill(j.b)
	return e.p.Commit(ctx, e.p.prog.seen)
}

// beginRead begins a transaction of rows that were read.
func (p *pipeline) beginRead(what string) error {
	at := p.prog.passed(p.tx)
	p.tx = at
	id := fmt.Sprintf("backfill:%s:%d:%d", what, at.Pos, at.Row)
	return p.Begin(&Tx{File: at.File, Pos: at.Pos, ID: id, CommitTime: time.Now().UnixMicro(), Read: true})
}

// everything is the seen-set of a mutant: it has every commit.
type everything struct{}

func (everything) Has(*backfill.Commit) bool { return true }
