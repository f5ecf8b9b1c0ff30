package subscribe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"sync/atomic"

	"github.com/tailrace/tailrace/stream"
)

// TransactionsConfig says what is put together again.
type TransactionsConfig struct {
	Config
	End        FeedPartition   // the END records: <prefix>.transaction, partition 0
	Partitions []FeedPartition // the changes
	// Unknown is called for each part of an END that is not among Partitions.
	// An error ends the iteration. Nil: such parts are none of ours.
	Unknown func(stream.EndPart) error
	// PieceBytes bounds what of a transaction is given at once; default 16 MiB.
	PieceBytes int
}

// A Transaction is a source transaction, or a piece of one that is large, or
// changes that stand outside of transactions.
type Transaction struct {
	ID    string       // as the source calls it; "" if Outside
	Place stream.Place // of its END; zero if Outside
	// Outside: the changes are not a source transaction: rows of a snapshot or
	// a backfill, or changes whose END is not there any more. All are of one
	// partition.
	Outside bool
	// EndOffset is that of its END record; of no meaning if Outside.
	EndOffset int64
	// Last: the transaction ends with this piece. Pieces of one transaction
	// follow each other, and count together or not at all.
	Last bool
	// Changes are in the order in which they were made, tombstones with them.
	// There may be none. They are valid until Release.
	Changes []*Change
	// Positions are those of the partitions that it moves: of its changes, and
	// with the last piece of the END records.
	Positions map[stream.Partition]Position

	holds []*hold
	bytes int
}

// Release gives the memory back. It may be called once, or never.
func (t *Transaction) Release() {
	for _, h := range t.holds {
		h.release()
	}
	t.holds, t.Changes = nil, nil
}

// hold is a batch that several transactions have changes of.
type hold struct {
	batch *Batch
	users atomic.Int32
}

func (h *hold) release() {
	if h.users.Add(-1) == 0 {
		h.batch.Release()
	}
}

// add adds the change at a lane's head.
func (t *Transaction) add(l *lane) {
	c := l.head()
	t.Changes = append(t.Changes, c)
	t.bytes += len(c.Key) + len(c.Value)
	t.Positions[l.part.id] = c.Position()
	if n := len(t.holds); n == 0 || t.holds[n-1] != l.hold {
		l.hold.users.Add(1)
		t.holds = append(t.holds, l.hold)
	}
	l.advance()
}

// Transactions reads partitions and gives whole source transactions, in the
// order in which the source committed them. An END record says of each
// partition how far a transaction reaches there; it is given when each has
// been read that far.
//
// Changes that belong to no END come by themselves, marked Outside, in their
// partition's order: rows of snapshots and backfills; what lies before the
// first END that is there; and, if there is none at the start, what lies before
// the partitions' ends as of then.
//
// It begins to read when the iteration does and has ended when that has. An
// error is the last that is given; ctx's end is one.
func Transactions(ctx context.Context, cfg TransactionsConfig) iter.Seq2[*Transaction, error] {
	return func(yield func(*Transaction, error) bool) {
		r, err := newRegrouper(ctx, cfg)
		if err != nil {
			yield(nil, err)
			return
		}
		defer r.feed.Close()
		if err := r.run(ctx, func(t *Transaction) bool { return yield(t, nil) }); !errors.Is(err, errStopped) {
			yield(nil, err)
		}
	}
}

var errStopped = errors.New("the iteration was ended")

// lane is a partition on its way into transactions.
type lane struct {
	part  *partition
	hold  *hold // nil: nothing is there
	next  int   // in the batch
	place stream.Place
	end   int64 // the partition's end at the start
	// midway: reading began after records that it knows nothing of, and has
	// found none yet.
	midway bool
}

func (l *lane) head() *Change {
	if l.hold == nil {
		return nil
	}
	return &l.hold.batch.Changes[l.next]
}

func (l *lane) put(b *Batch) {
	l.hold, l.next = &hold{batch: b}, 0
	l.hold.users.Store(1)
	l.midway = false
}

func (l *lane) advance() {
	if c := l.head(); c.Mark.Place.Compare(l.place) > 0 {
		l.place = c.Mark.Place
	}
	if l.next++; l.next == len(l.hold.batch.Changes) {
		l.hold.release()
		l.hold = nil
	}
}

// regrouper puts transactions together.
type regrouper struct {
	cfg   TransactionsConfig
	feed  *Feed
	end   *lane
	lanes map[stream.Partition]*lane
	all   []*lane // in the configuration's order
	by    map[*partition]*lane

	last  stream.Place // of the last END; zero: there was none
	known int64        // where the ENDs ended when a lane had failed; 0: none has
}

func newRegrouper(ctx context.Context, cfg TransactionsConfig) (*regrouper, error) {
	if cfg.PieceBytes <= 0 {
		cfg.PieceBytes = 16 << 20
	}
	cfg.End.Skip = true
	r := &regrouper{cfg: cfg, lanes: make(map[stream.Partition]*lane), by: make(map[*partition]*lane), last: cfg.End.From.Place}
	// The END records' end is asked for before those of the changes, so that
	// whatever an END before it speaks of lies before the ends of the changes.
	all := append([]FeedPartition{cfg.End}, cfg.Partitions...)
	offsets := make([]stream.Offsets, len(all))
	for i, p := range all {
		var err error
		if offsets[i], err = cfg.Client.Offsets(ctx, p.Topic, p.Number); err != nil {
			return nil, err
		}
	}
	var err error
	if r.feed, err = NewFeed(ctx, cfg.Config, all); err != nil {
		return nil, err
	}
	for i, p := range r.feed.parts {
		from := p.from.From
		l := &lane{part: p, place: from.Place, end: offsets[i].End, midway: !from.Known() && max(from.Offset, offsets[i].Start) > 0}
		r.by[p] = l
		if i == 0 {
			r.end = l
			continue
		}
		r.lanes[p.id] = l
		r.all = append(r.all, l)
	}
	return r, nil
}

// run gives transactions until emit returns false; then it returns errStopped.
func (r *regrouper) run(ctx context.Context, emit func(*Transaction) bool) error {
	for {
		end, err := r.between(ctx, emit)
		if err != nil {
			return err
		}
		if err := r.transaction(ctx, end, emit); err != nil {
			return err
		}
	}
}

// fill takes what was read ahead for lanes that have nothing, without waiting.
func (r *regrouper) fill() error {
	for {
		b, err := r.feed.take(func(p *partition) bool { return r.by[p].hold == nil })
		if b == nil || err != nil {
			return err
		}
		r.put(b)
	}
}

func (r *regrouper) put(b *Batch) {
	if b.Partition == r.end.part.id {
		r.end.put(b)
		return
	}
	r.lanes[b.Partition].put(b)
}

// between gives what stands outside of transactions until there is an END, and
// returns that.
func (r *regrouper) between(ctx context.Context, emit func(*Transaction) bool) (*Change, error) {
	for {
		if err := r.fill(); err != nil {
			return nil, err
		}
		end := r.end.head()
		if end != nil && end.Op != OpEnd {
			return nil, fmt.Errorf("read topic %s: record at offset %d is not the end of a transaction", end.Partition.Topic, end.Offset)
		}
		given := false
		for _, l := range r.all {
			if !r.outside(l, end) {
				continue
			}
			given = true
			if err := r.giveOutside(l, end, emit); err != nil {
				return nil, err
			}
		}
		switch {
		case end != nil:
			return end, nil
		case given:
			continue
		}
		if err := r.wait(ctx); err != nil {
			return nil, err
		}
	}
}

// wait waits for anything that is new to a lane that has nothing. That one of
// them has failed ends the waiting, also for another, once the ENDs that were
// there by then have been read: what they end is given before.
func (r *regrouper) wait(ctx context.Context) error {
	if err := r.feed.failed(); err != nil {
		if r.known == 0 {
			at, oerr := r.cfg.Client.Offsets(ctx, r.end.part.id.Topic, r.end.part.id.Number)
			if oerr != nil {
				return err
			}
			r.known = at.LastStable
		}
		if r.feed.drained(r.end.part, r.known) {
			return err
		}
	}
	select {
	case <-r.feed.wake:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("read topics: %w", context.Cause(ctx))
	}
}

// outside says whether a lane's head belongs to no transaction: end is the next
// END, nil if it is not there yet.
func (r *regrouper) outside(l *lane, end *Change) bool {
	c := l.head()
	switch {
	case c == nil:
		return false
	case c.Backfill() || c.Repeated:
		return true
	case end != nil:
		return compareOrder(c.Mark.Place, end.Mark.Place) < 0
	case r.last != (stream.Place{}):
		return compareOrder(c.Mark.Place, r.last) <= 0
	}
	return c.Offset < l.end && r.feed.drained(r.end.part, r.end.end)
}

// compareOrder compares the commits that records belong to.
func compareOrder(a, b stream.Place) int {
	a.Row, b.Row = 0, 0
	return a.Compare(b)
}

// giveOutside gives a lane's changes that stand outside, as far as they were
// read ahead.
func (r *regrouper) giveOutside(l *lane, end *Change, emit func(*Transaction) bool) error {
	t := newTransaction()
	t.Outside, t.Last = true, true
	for r.outside(l, end) && t.bytes < r.cfg.PieceBytes {
		t.add(l)
	}
	if !emit(t) {
		return errStopped
	}
	return nil
}

func newTransaction() *Transaction {
	return &Transaction{Positions: make(map[stream.Partition]Position)}
}

// transaction gives the transaction that end ends, and takes end.
func (r *regrouper) transaction(ctx context.Context, end *Change, emit func(*Transaction) bool) error {
	id, err := end.TransactionID()
	if err != nil {
		return fmt.Errorf("read topic %s: record at offset %d: %w", end.Partition.Topic, end.Offset, err)
	}
	parts, err := r.parts(end)
	if err != nil {
		return err
	}
	for i := range parts {
		if err := r.approach(ctx, &parts[i], end, emit); err != nil {
			return err
		}
	}
	piece := func() *Transaction {
		t := newTransaction()
		t.ID, t.Place, t.EndOffset = id, end.Mark.Place, end.Offset
		return t
	}
	t := piece()
	for i := range parts {
		p := &parts[i]
		for {
			reached, err := r.await(ctx, p, end)
			if err != nil {
				return err
			}
			if reached {
				break
			}
			t.add(p.lane)
			if t.bytes < r.cfg.PieceBytes {
				continue
			}
			t.sort(len(parts))
			if !emit(t) {
				return errStopped
			}
			t = piece()
		}
	}
	t.sort(len(parts))
	t.Last = true
	t.Positions[r.end.part.id] = end.Position()
	r.last = end.Mark.Place
	r.end.advance()
	if !emit(t) {
		return errStopped
	}
	return nil
}

// sort brings the changes of several partitions into the order in which they
// were made.
func (t *Transaction) sort(parts int) {
	if parts > 1 {
		slices.SortStableFunc(t.Changes, func(a, b *Change) int { return cmp.Compare(a.Mark.Row, b.Mark.Row) })
	}
}

// A target is how far a transaction reaches in a lane.
type target struct {
	lane *lane
	to   stream.Place
}

func (r *regrouper) parts(end *Change) ([]target, error) {
	targets := make([]target, 0, len(end.End))
	for _, p := range end.End {
		l := r.lanes[stream.Partition{Topic: p.Topic, Number: p.Partition}]
		if l == nil {
			if r.cfg.Unknown != nil {
				if err := r.cfg.Unknown(p); err != nil {
					return nil, err
				}
			}
			continue
		}
		to := end.Mark.Place
		to.Row = p.Row
		targets = append(targets, target{l, to})
	}
	return targets, nil
}

// approach gives what stands outside before the transaction in a lane.
func (r *regrouper) approach(ctx context.Context, p *target, end *Change, emit func(*Transaction) bool) error {
	for {
		if reached, err := r.await(ctx, p, end); reached || err != nil {
			return err
		}
		if !r.outside(p.lane, end) {
			return nil
		}
		if err := r.giveOutside(p.lane, end, emit); err != nil {
			return err
		}
	}
}

// await waits until the lane has a change that lies within the target, and
// returns false, or until it is clear that there is none any more: it was taken
// already, a later one is next, or retention has removed it: reading began in
// the middle of the partition, there was nothing left, and the END is older.
func (r *regrouper) await(ctx context.Context, p *target, end *Change) (reached bool, err error) {
	for {
		if c := p.lane.head(); c != nil {
			return !c.Repeated && c.Mark.Place.Compare(p.to) > 0, nil
		}
		if p.lane.place.Compare(p.to) >= 0 {
			return true, nil
		}
		b, err := r.feed.take(func(q *partition) bool { return q == p.lane.part })
		switch {
		case err != nil:
			return false, err
		case b != nil:
			p.lane.put(b)
			continue
		case p.lane.midway && end.Offset < r.end.end && r.feed.drained(p.lane.part, p.lane.end):
			return true, nil
		}
		if err := r.wait(ctx); err != nil {
			return false, err
		}
	}
}
