package sinks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tailrace/tailrace/stream"
	"github.com/tailrace/tailrace/stream/subscribe"
)

// Bounds of what a request applies at once.
const (
	taskChunk = 1000
	taskBytes = 4 << 20
)

// obsolete is an outcome that a TRUNCATE makes count.
type obsolete struct {
	Outcome
	at int64
}

// obsolete writes that a TRUNCATE ends what is parked of a partition.
func (d *letters) obsolete(ctx context.Context, p Partition, t *Change) (obsolete, error) {
	o := obsolete{Outcome: Outcome{Asked: -1, Reason: fmt.Sprintf("made obsolete by the TRUNCATE at offset %d", t.Offset)}}
	for _, l := range d.parts[p].lanes {
		for _, one := range *l {
			o.Dropped = append(o.Dropped, one.offset)
		}
	}
	slices.Sort(o.Dropped)
	var err error
	o.at, err = d.outcome(ctx, p, &o.Outcome)
	return o, err
}

// doRequests does what is asked for, in the order in which it was, and returns a context
// that ends when more comes. Where letters are ahead of the position a request waits: what
// lies between must be read first, or it would be applied again.
func (k *keyed) doRequests(ctx, reading context.Context) (until context.Context, err error) {
	came, until := k.dead.inbox.take(reading)
	k.dead.asked = append(k.dead.asked, came...)
	for len(k.dead.asked) > 0 {
		a := k.dead.asked[0]
		for p, s := range k.dead.parts {
			if s.last >= k.at[p].Offset && len(s.tasks(p, a.Request, a.at)) > 0 {
				return until, nil
			}
		}
		for _, p := range slices.SortedFunc(maps.Keys(k.dead.parts), comparePartitions) {
			if err := k.do(ctx, p, a); err != nil {
				return nil, err
			}
		}
		k.dead.asked = k.dead.asked[1:]
	}
	return until, nil
}

func comparePartitions(a, b Partition) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Number, b.Number))
}

// job is one request being done in one partition.
type job struct {
	k       *keyed
	p       Partition
	asked   asked
	blocked map[string]bool // lanes of which a change was refused again: what follows stays
	again   []RefusedMore
	tasks   []task // of the present chunk
}

// do does a request in one partition. It may be cut off anywhere: what it has applied is
// known by then, and it is begun anew with what is left.
func (k *keyed) do(ctx context.Context, p Partition, a asked) error {
	tasks := k.dead.parts[p].tasks(p, a.Request, a.at)
	if len(tasks) == 0 {
		return nil
	}
	k.cfg.Log.Info("does what was asked for dead letters", "sink", k.cfg.Name, "action", a.Action, "topic", p.Topic, "partition", p.Number, "letters", len(tasks))
	j := &job{k: k, p: p, asked: a, blocked: make(map[string]bool)}
	for len(tasks) > 0 {
		n, size := 0, 0
		for n < len(tasks) && n < taskChunk && (n == 0 || size+tasks[n].size <= taskBytes) {
			size += tasks[n].size
			n++
		}
		j.tasks, tasks = tasks[:n], tasks[n:]
		if err := j.chunk(ctx); err != nil {
			return err
		}
	}
	o := Outcome{Request: a.ID, Asked: a.at, Done: true, Again: j.again}
	return j.commit(ctx, &o)
}

// chunk reads and applies the present tasks.
func (j *job) chunk(ctx context.Context) error {
	changes, err := j.k.dead.read(ctx, j.p, j.tasks)
	if err != nil {
		return err
	}
	d := divider{changes: changes}
	d.try = func(ctx context.Context, lo, hi int) ([]int, error) { return j.hand(ctx, changes, lo, hi) }
	d.refuse = func(i int, why *Cause) error {
		j.blocked[j.tasks[i].lane] = true
		j.again = append(j.again, RefusedMore{j.tasks[i].offset, j.tasks[i].attempts + 1, *why})
		return nil
	}
	return d.run(ctx, 0, len(changes))
}

// hand hands the target what the tasks from lo to hi say. That they are done counts with it.
func (j *job) hand(ctx context.Context, changes []Change, lo, hi int) ([]int, error) {
	k := j.k
	k.empty()
	k.out.Divisible = true
	o := Outcome{Request: j.asked.ID, Asked: j.asked.at}
	for i := lo; i < hi; i++ {
		t := &j.tasks[i]
		switch {
		case j.blocked[t.lane]:
		case t.drop:
			o.Dropped, o.Reason = append(o.Dropped, t.offset), j.asked.Reason
		default:
			o.Applied = append(o.Applied, t.offset)
			k.out.Changes, k.given = append(k.out.Changes, &changes[i]), append(k.given, i)
		}
	}
	if len(o.Applied)+len(o.Dropped) == 0 {
		return k.given, nil
	}
	return k.given, j.commit(ctx, &o)
}

// commit writes an outcome and has it count, together with the changes of the batch.
func (j *job) commit(ctx context.Context, o *Outcome) error {
	k := j.k
	if o.Done {
		k.empty()
	}
	at, err := k.dead.outcome(ctx, j.p, o)
	if err != nil {
		return err
	}
	k.out.Positions[j.p] = k.at[j.p]
	k.out.Positions[headPartition(k.cfg.Name, j.p)] = k.dead.after(j.p, at, o)
	t := tally{began: time.Now()}
	for _, c := range k.out.Changes {
		t.ops[c.Op]++
	}
	if err := k.applyCounted(ctx, &k.out, &t); err != nil {
		return err
	}
	return k.dead.settle(ctx, j.p, at, o)
}

var errLetterGone = errors.New("a letter is not there")

// read reads the letters of tasks, whose order it keeps.
func (d *letters) read(ctx context.Context, p Partition, tasks []task) ([]Change, error) {
	wanted := make(map[int64]int, len(tasks)) // by their offset in the dead letter topic
	first := tasks[0].at
	for i := range tasks {
		wanted[tasks[i].at] = i
		first = min(first, tasks[i].at)
	}
	out := make([]Change, len(tasks))
	copyist := subscribe.NewCopyist(d.cfg.Source)
	r := d.cfg.Source.Client.NewReader(d.out.topic, 0, first, stream.FetchOptions{MaxWait: time.Second})
	for len(wanted) > 0 {
		if r.HighWatermark() >= 0 && r.Offset() >= r.HighWatermark() {
			return nil, lostLetters(d.out.topic, errLetterGone)
		}
		err := r.Read(ctx, func(rec *stream.Record) error {
			i, ok := wanted[rec.Offset]
			if !ok {
				return nil
			}
			delete(wanted, rec.Offset)
			c, err := copyist.Change(ctx, p, tasks[i].offset, rec)
			if err != nil {
				return err
			}
			for _, b := range []*[]byte{&c.Key, &c.Value, &c.OldKey, &c.NewKey} {
				if *b != nil {
					*b = append([]byte{}, *b...)
				}
			}
			out[i] = c
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read dead letters: %w", err)
		}
	}
	return out, nil
}
