package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/deploy/internal/judge"
	"github.com/tailrace/tailrace/deploy/internal/product"
	"github.com/tailrace/tailrace/deploy/internal/workload"
	"github.com/tailrace/tailrace/deploy/testenv"
	"github.com/tailrace/tailrace/stream"
)

// The engine of backfills has two readers, and so many chunks under way at most; a chunk has
// a quarter of the rows at most that its backfill may read in a second.
const (
	backfillReaders = 2
	chunksInFlight  = 2*backfillReaders + 2
	chunksPerSecond = 4
)

// askAgain is for how long the capture is waited for to answer: the request may be lost.
const askAgain = 2 * time.Second

// readVerdict is what was found of backfills.
type readVerdict struct {
	Backfills   int `json:"backfills"`
	Done        int `json:"backfills_done"`
	UnderWay    int `json:"kills_under_way"` // kills with a backfill under way
	Rows        int `json:"rows_read"`       // records of rows
	Chunks      int `json:"chunks"`
	TornChunks  int `json:"chunks_in_part"` // left by kills of the embedded broker, and read again
	Again       int `json:"rows_read_again"`
	AgainMost   int `json:"rows_read_again_by_one_run"`
	Bound       int `json:"rows_in_flight"`    // which one run may read again
	CommitsHeld int `json:"commits_held_back"` // times that commits were in the log and not visible
	LogHeld     int `json:"log_held_back"`     // times that they were visible and not sent
	TooMany     int `json:"read_again_beyond"`
	Stale       int `json:"stale"`
	Unread      int `json:"unread"`
	Different   int `json:"different"`
}

func (v *readVerdict) take(j *judge.ReadVerdict) {
	v.Backfills, v.Rows, v.Chunks, v.TornChunks = j.Backfills, j.Rows, j.Chunks, j.TornChunks
	v.Again, v.AgainMost, v.TooMany, v.Stale, v.Unread, v.Different = j.Again, j.AgainMost, j.TooMany, j.Stale, j.Unread, j.Different
}

func (v *readVerdict) good() bool { return v.TooMany+v.Stale+v.Unread+v.Different == 0 }

func (v *readVerdict) print(w io.Writer) {
	fmt.Fprintf(w, "backfills\t%d, %d of them done\nkills with one under way\t%d\nrows read\t%d in %d chunks, %d chunks in part\n", v.Backfills, v.Done, v.UnderWay, v.Rows, v.Chunks, v.TornChunks)
	fmt.Fprintf(w, "rows read again\t%d, %d by one run at most; %d in flight\ncommits held back\t%d times, the log %d times\n", v.Again, v.AgainMost, v.Bound, v.CommitsHeld, v.LogHeld)
	fmt.Fprintf(w, "read again beyond that\t%d\nstale\t%d\nunread\t%d\ndifferent\t%d\n", v.TooMany, v.Stale, v.Unread, v.Different)
}

// reads has rows read while the capture is killed.
type reads struct {
	initial []judge.Row
	rate    int     // rows a second of a backfill at most
	starts  []int64 // of the capture, milliseconds
	kills   []time.Time
	client  *stream.Client
	end     context.CancelFunc
	work    sync.WaitGroup

	mu   sync.Mutex // the rest, while the goroutines work
	errs []error
	last string // the last command that the broker has taken
	runs bool   // whether a backfill ran when the capture was last asked

	commitsHeld, logHeld int // how often
}

// fill fills the tables.
func fill(ctx context.Context, pg *testenv.Postgres, rows, rate int) (*reads, error) {
	if err := workload.Fill(ctx, pg.AdminURL(database), writers, rows); err != nil {
		return nil, err
	}
	initial, err := workload.Rows(ctx, pg.AdminURL(database), prefix)
	return &reads{initial: initial, rate: rate}, err
}

// begin asks for backfills and holds back commits and the log until rest is called.
func (r *reads) begin(ctx context.Context, p *product.Product, pg *testenv.Postgres, seed uint64) (err error) {
	if r == nil {
		return nil
	}
	if r.client, err = stream.NewClient(stream.Config{Brokers: []string{p.Broker()}, Timeout: time.Second}); err != nil {
		return err
	}
	ctx, r.end = context.WithCancel(ctx)
	r.work.Go(func() { r.ask(ctx, p, rand.New(rand.NewPCG(seed, 78))) })
	r.work.Go(func() { r.note(r.disturb(ctx, pg, rand.New(rand.NewPCG(seed, 77)))) })
	return nil
}

// rest ends what begin has begun; further calls do nothing.
func (r *reads) rest() error {
	if r == nil || r.end == nil {
		return nil
	}
	r.end()
	r.work.Wait()
	r.end = nil
	return errors.Join(r.errs...)
}

func (r *reads) note(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.errs = append(r.errs, err)
	}
}

// ask asks for a backfill of each table with a key that has none: for slower and faster ones,
// so that they do not all end at the same time.
func (r *reads) ask(ctx context.Context, p *product.Product, rng *rand.Rand) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	asked := map[string]asking{}
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for name, a := range asked {
			out, err := capture.OutcomeOf(ctx, r.client, prefix, a.id)
			if err == nil && out != nil || time.Since(a.at) > askAgain {
				delete(asked, name)
			}
			if err != nil {
				break // the broker has been killed
			}
		}
		under, runs := p.Backfills(ctx) // after the outcomes: what was begun by one is among these
		if !runs {
			continue
		}
		r.mu.Lock()
		r.runs = slices.ContainsFunc(under, func(b product.Backfill) bool { return b.State == string(capture.BackfillRunning) })
		r.mu.Unlock()
		for i := range workload.Tables {
			name := workload.Tables[i].Name
			has := slices.ContainsFunc(under, func(b product.Backfill) bool { return b.Name == name })
			if _, waits := asked[name]; has || waits || len(workload.Tables[i].Key) == 0 {
				continue
			}
			n++
			c := capture.Command{ID: fmt.Sprintf("again-%d-%s", n, name), Verb: capture.VerbStart, At: time.Now(), Namespace: "public", Name: name,
				Rate: r.rate - rng.IntN(r.rate/2)}
			// The broker may be killed meanwhile; then the next look asks again.
			if err := capture.Send(ctx, r.client, prefix, &c); err == nil {
				asked[name] = asking{c.ID, time.Now()}
				r.mu.Lock()
				r.last = c.ID
				r.mu.Unlock()
			}
		}
	}
}

// asking is a request that the capture may not have answered.
type asking struct {
	id string
	at time.Time
}

// idle says whether no backfill ran when the capture was last asked. A kill may wait then: it
// would prove nothing.
func (r *reads) idle() bool {
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.runs
}

// disturb has the log and what is visible differ, for up to a quarter of a second, again and
// again: commits are in the log and not visible, since they wait for a standby that does not
// exist; or they are visible and the log is late, since the process that sends it is stopped.
func (r *reads) disturb(ctx context.Context, pg *testenv.Postgres, rng *rand.Rand) (err error) {
	conn, err := pgx.Connect(ctx, pg.AdminURL(database))
	if err != nil {
		return err
	}
	ended := ctx.Done()
	ctx = context.WithoutCancel(ctx) // what was held back must be let go
	defer conn.Close(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	undo := func() error { return nil }
	defer func() { err = errors.Join(err, undo()) }()
	for n := 0; ; n++ {
		select {
		case <-ended:
			return nil
		case <-timer.C:
		}
		timer.Reset(time.Duration(20+rng.IntN(230)) * time.Millisecond)
		if err := undo(); err != nil {
			return err
		}
		undo = func() error { return nil }
		switch n % 4 {
		case 1:
			undo, err = r.holdCommits(ctx, conn)
		case 3:
			undo, err = r.holdLog(ctx, conn)
		}
		if err != nil {
			return err
		}
	}
}

// holdCommits keeps commits invisible until undo is called.
func (r *reads) holdCommits(ctx context.Context, conn *pgx.Conn) (undo func() error, err error) {
	set := func(standby string) error {
		if _, err := conn.Exec(ctx, "ALTER SYSTEM SET synchronous_standby_names = '"+standby+"'"); err != nil {
			return fmt.Errorf("hold back commits: %w", err)
		}
		if _, err := conn.Exec(ctx, "SELECT pg_reload_conf()"); err != nil {
			return fmt.Errorf("hold back commits: %w", err)
		}
		return nil
	}
	r.commitsHeld++
	return func() error { return set("") }, set("nobody")
}

// holdLog stops the process that sends the log, if there is one, until undo is called.
func (r *reads) holdLog(ctx context.Context, conn *pgx.Conn) (undo func() error, err error) {
	none := func() error { return nil }
	var pid int
	err = conn.QueryRow(ctx, "SELECT pid FROM pg_stat_replication LIMIT 1").Scan(&pid)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && syscall.Kill(pid, syscall.SIGSTOP) != nil {
		return none, nil // the capture has just been killed
	}
	if err != nil {
		return none, fmt.Errorf("look for the sender of the log: %w", err)
	}
	r.logHeld++
	return func() error { syscall.Kill(pid, syscall.SIGCONT); return nil }, nil
}

// settle waits until every backfill that was asked for has ended.
func (b *bench) settle(ctx context.Context) error {
	deadline := time.NewTimer(drainWithin)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		answered := b.reads.last == ""
		if !answered {
			out, err := capture.OutcomeOf(ctx, b.reads.client, prefix, b.reads.last)
			answered = err == nil && out != nil
		}
		left, runs := b.product.Backfills(ctx)
		for _, f := range left {
			if f.State == "failed" {
				b.result.Stopped = fmt.Sprintf("backfill %s has failed: %s", f.ID, f.Error)
				return nil
			}
		}
		if answered && runs && len(left) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-b.product.Done():
			b.stopped()
			return nil
		case <-deadline.C:
			b.result.Stopped = fmt.Sprintf("%d backfills have not ended after %s: %s", len(left), drainWithin, why(b.product.Log(2000)))
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// underWay is at how many kills a backfill had been started and had not ended.
func (r *reads) underWay(list []capture.Backfill) (n int) {
	for _, at := range r.kills {
		if slices.ContainsFunc(list, func(b capture.Backfill) bool {
			return b.Started != nil && !b.Started.After(at) && (b.Ended == nil || b.Ended.After(at))
		}) {
			n++
		}
	}
	return n
}

// facts is what the judge must know of backfills; nil without.
func (b *bench) facts(ctx context.Context) (*judge.Reads, error) {
	if b.reads == nil {
		return nil, nil
	}
	final, err := workload.Rows(ctx, b.pg.AdminURL(database), prefix)
	if err != nil {
		return nil, err
	}
	list, err := capture.Backfills(ctx, b.reads.client, prefix)
	if err != nil {
		return nil, err
	}
	done := map[string]string{}
	for i := range list {
		if list[i].State == capture.BackfillDone {
			done[list[i].ID] = prefix + "." + list[i].Table()
		}
	}
	b.result.UnderWay = b.reads.underWay(list)
	f := &judge.Reads{Initial: b.reads.initial, Final: final, Starts: b.reads.starts, Done: done, Tears: b.broker == "embedded"}
	if f.Tears { // Apache Kafka commits progress together with the rows
		f.Again = chunksInFlight * b.readRate / chunksPerSecond
	}
	b.result.Done, b.result.Bound = len(done), f.Again
	b.result.CommitsHeld, b.result.LogHeld = b.reads.commitsHeld, b.reads.logHeld
	return f, nil
}
