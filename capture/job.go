package capture

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tailrace/tailrace/capture/backfill"
)

// job is a backfill that has not ended.
type job struct {
	b       *Backfill
	table   ChunkTable
	spans   []*span // none: not planned yet
	size    backfill.Size
	tracker *backfill.Tracker // nil: it is not active
	plan    *ChunkPlan        // nil: the table has not been looked at since it is active

	planning bool
	failures int       // in a row
	retryAt  time.Time // not before
	rateAt   time.Time // no chunk before, because of the rate
	told     string    // the last error that was logged
	torn     int       // chunks that were read in vain since one was written
}

// span is one range of a job at work.
type span struct {
	n int
	ranged
	stale      bool     // its state record tells of a commit that was rolled back
	next       []string // the key after which the next chunk begins
	whole      bool     // it has been read to its end
	reading    bool     // a chunk of it is being read
	generation int      // chunks of an earlier one are of no use
	armed      []*chunkRead
	retryAt    time.Time
}

// newJob makes the job of a backfill for a run that starts at the position of cut g.
func newJob(b *Backfill, ranges map[int]rangeState, g uint64) *job {
	j := &job{b: b, table: ChunkTable{Namespace: b.Namespace, Name: b.Name, Where: b.Where,
		Range: backfill.Range{After: b.FromKey, To: b.ToKey}}}
	if b.Ranges > 0 && len(ranges) == b.Ranges && !mutant("forget-progress") {
		for n := range b.Ranges {
			r := ranges[n]
			s := newSpan(b.ID, n, r.at(g))
			s.stale = r.G > g
			j.spans = append(j.spans, s)
		}
	}
	return j
}

func newSpan(id string, n int, p backfill.Progress) *span {
	return &span{n: n, ranged: ranged{key: chunkKey(id, n), now: p, cut: p}, next: p.After, whole: p.Done}
}

// finished says that everything is written.
func (j *job) finished() bool {
	return len(j.spans) > 0 && !slices.ContainsFunc(j.spans, func(s *span) bool { return !s.now.Done })
}

// progress returns the rows written and read so far.
func (j *job) progress() (rows, read int64) {
	for _, s := range j.spans {
		rows += s.now.Rows
		read += s.now.Read
	}
	return rows, read
}

// touch has a backfill saved with the next records of the engine.
func (e *engine) touch(b *Backfill) {
	e.touched[b.ID] = b
	e.p.cfg.Monitor.backfill(b)
}

// changed returns the records of what has changed since it was called last.
func (e *engine) changed() []stateRecord {
	var records []stateRecord
	for _, id := range slices.Sorted(maps.Keys(e.touched)) {
		records = append(records, stateRecord{key: backfillKey(id), value: mustJSON(e.touched[id])})
	}
	clear(e.touched)
	return records
}

// add takes up a new backfill.
func (e *engine) add(b *Backfill) {
	b.State, b.Requested = BackfillWaiting, time.Now().UTC()
	e.known[b.ID] = b
	e.jobs = append(e.jobs, newJob(b, nil, 0))
	e.touch(b)
}

// jobOf returns the job of a backfill, nil if it has ended.
func (e *engine) jobOf(b *Backfill) *job {
	if i := slices.IndexFunc(e.jobs, func(j *job) bool { return j.b == b }); i >= 0 {
		return e.jobs[i]
	}
	return nil
}

// on returns the job that a table has.
func (e *engine) on(table string) *job {
	if i := slices.IndexFunc(e.jobs, func(j *job) bool { return j.b.Table() == table }); i >= 0 {
		return e.jobs[i]
	}
	return nil
}

// proceed has the jobs whose turn it is go on.
func (e *engine) proceed(ctx context.Context) error {
	now := time.Now()
	turns := e.turns()
	for _, j := range slices.Clone(e.jobs) {
		if j.b.State == BackfillPaused {
			continue
		}
		if turns--; turns < 0 {
			break
		}
		if err := e.proceedWith(ctx, j, now); err != nil {
			return err
		}
	}
	return nil
}

func (e *engine) proceedWith(ctx context.Context, j *job, now time.Time) error {
	switch {
	case j.finished():
		return e.end(ctx, j, BackfillDone, nil)
	case j.tracker != nil && j.tracker.Stale():
		e.deactivate(j)
	case now.Before(j.retryAt) || j.planning:
	case j.plan == nil:
		return e.lookAt(ctx, j)
	default:
		e.dispatch(j, now)
	}
	return nil
}

// lookAt makes a job active: from here on the changes of its table are noted, and then the
// source is asked what transactions run, and looks at the table.
func (e *engine) lookAt(ctx context.Context, j *job) error {
	topic := e.topicOf(j.b.Namespace, j.b.Name)
	if j.tracker == nil {
		j.tracker = new(backfill.Tracker)
		e.track(topic, j.tracker)
		e.run(j)
		if err := e.p.save(ctx, e.changed()); err != nil {
			return err
		}
	}
	tracker, table := j.tracker, j.table
	table.Ranges = 4 * e.p.cfg.Backfill.readers()
	table.Added = j.b.Cause == CauseAdded && len(j.spans) == 0
	look := func(ctx context.Context) {
		xids, err := e.chunker.Running(ctx)
		var plan *ChunkPlan
		if err == nil {
			plan, err = e.chunker.Plan(ctx, &table)
		}
		e.inbox.post(func(ctx context.Context) error {
			j.planning = false
			if j.tracker != tracker {
				return nil // it was paused, or ended
			}
			return e.planned(ctx, j, xids, plan, err)
		})
	}
	select {
	case e.looks <- look:
		j.planning = true
	default: // many were paused while they were looked at
	}
	return nil
}

// run notes that a backfill runs from now on.
func (e *engine) run(j *job) {
	now := time.Now().UTC()
	j.b.State, j.b.Resumed, j.b.Error, j.b.Hint = BackfillRunning, &now, "", ""
	_, j.b.ResumedAt = j.progress()
	if j.b.Started == nil {
		j.b.Started = &now
	}
	e.touch(j.b)
}

// planned takes what the source says of a job's table.
func (e *engine) planned(ctx context.Context, j *job, xids []uint64, plan *ChunkPlan, err error) error {
	if err != nil {
		return e.failed(ctx, j, fmt.Errorf("look at table %s: %w", j.b.Table(), err))
	}
	if err := j.fits(plan); err != nil {
		return e.end(ctx, j, BackfillFailed, err)
	}
	j.tracker.Running(xids)
	j.plan, j.failures = plan, 0
	if len(j.spans) > 0 {
		if j.b.ToTopic != "" && e.p.routes.topics[j.b.ToTopic] == nil {
			return e.end(ctx, j, BackfillFailed, stopf("start another backfill", "topic %s, which the rows go to, is not written to any more: it was deleted", j.b.ToTopic))
		}
		return nil
	}
	records, err := e.openCopy(ctx, j)
	if err != nil {
		if IsFatal(err) && ctx.Err() == nil {
			return e.end(ctx, j, BackfillFailed, err)
		}
		return err
	}
	b := j.b
	b.Identity, b.Key, b.Estimate, b.Ranges = plan.Identity, plan.Key, plan.Estimate, len(plan.Ranges)
	e.touch(b)
	for n, r := range plan.Ranges {
		s := newSpan(b.ID, n, backfill.Progress{Range: r})
		j.spans = append(j.spans, s)
		records = append(records, stateRecord{key: s.key, value: mustJSON(rangeState{Progress: s.now, Before: s.now})})
	}
	e.log.Info("backfill begins", "backfill", b.ID, "table", b.Table(), "key", strings.Join(b.Key, ", "), "ranges", b.Ranges, "estimated_rows", b.Estimate)
	return e.p.save(ctx, append(records, e.changed()...))
}

// fits says whether a plan is of the table that the job has read from so far.
func (j *job) fits(plan *ChunkPlan) error {
	const hint = "start another backfill of the table: this one cannot tell which rows it has read"
	switch {
	case len(plan.Ranges) == 0 || len(plan.Key) == 0:
		return stopf("", "table %s cannot be read in ranges of its key", j.b.Table())
	case j.b.Identity != "" && j.b.Identity != plan.Identity:
		return stopf(hint, "table %s was dropped, and made anew", j.b.Table())
	case len(j.spans) > 0 && !slices.Equal(j.b.Key, plan.Key):
		return stopf(hint, "the key of table %s was (%s) and is now (%s)", j.b.Table(), strings.Join(j.b.Key, ", "), strings.Join(plan.Key, ", "))
	}
	return nil
}

// failed has a job try again later, or ends it.
func (e *engine) failed(ctx context.Context, j *job, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if IsFatal(err) {
		return e.end(ctx, j, BackfillFailed, err)
	}
	j.failures++
	pause := min(100*time.Millisecond<<min(j.failures, 6), 5*time.Second)
	j.retryAt = time.Now().Add(pause)
	if text := err.Error(); text != j.told {
		j.told = text
		e.log.Warn("backfill will try again", "backfill", j.b.ID, "table", j.b.Table(), "error", err, "hint", HintOf(err))
	}
	return nil
}

// end ends a job, and makes that durable.
func (e *engine) end(ctx context.Context, j *job, state BackfillState, cause error) error {
	return e.p.saveBehind(ctx, e.close(j, state, cause))
}

// close ends a job and returns the records that say so.
func (e *engine) close(j *job, state BackfillState, cause error) []stateRecord {
	e.deactivate(j)
	e.jobs = slices.DeleteFunc(e.jobs, func(o *job) bool { return o == j })
	now := time.Now().UTC()
	b := j.b
	b.State, b.Ended, b.Resumed = state, &now, nil
	b.Rows, b.Read = j.progress()
	if cause != nil {
		b.Error, b.Hint = cause.Error(), HintOf(cause)
		e.log.Error("backfill failed", "backfill", b.ID, "table", b.Table(), "error", cause, "hint", b.Hint)
	} else {
		e.log.Info("backfill ended", "backfill", b.ID, "table", b.Table(), "state", state, "rows", b.Rows, "read", b.Read)
	}
	e.touch(b)
	records := e.changed()
	if state == BackfillFailed { // it can go on
		e.ended[b.ID] = j
		return records
	}
	for _, s := range j.spans {
		records = append(records, stateRecord{key: s.key})
	}
	return append(append(records, e.closeCopy(j)...), e.forgetOld()...)
}

// keptBackfills is how many that have ended the state keeps.
const keptBackfills = 500

// forgetOld returns the records that remove backfills which ended long ago.
func (e *engine) forgetOld() (records []stateRecord) {
	var old []*Backfill
	for _, b := range e.known {
		if b.State == BackfillDone || b.State == BackfillCancelled {
			old = append(old, b)
		}
	}
	if len(old) <= keptBackfills {
		return nil
	}
	slices.SortFunc(old, func(a, b *Backfill) int { return a.Requested.Compare(b.Requested) })
	for _, b := range old[:len(old)-keptBackfills] {
		delete(e.known, b.ID)
		records = append(records, stateRecord{key: backfillKey(b.ID)})
	}
	return records
}

// deactivate gives up what is under way of a job, and no longer notes its table's changes.
func (e *engine) deactivate(j *job) {
	for _, s := range j.spans {
		e.rewind(j, s)
		s.next, s.whole = s.now.After, s.now.Done
	}
	if j.tracker != nil {
		e.track(e.topicOf(j.b.Namespace, j.b.Name), nil)
	}
	j.tracker, j.plan = nil, nil
}

// track has a table's changes noted by t; nil: by nobody.
func (e *engine) track(topic string, t *backfill.Tracker) {
	if e.trackers[topic] = t; t == nil {
		delete(e.trackers, topic)
	}
	if route := e.p.routes.topics[topic]; route != nil {
		route.tracker = t
	}
}
