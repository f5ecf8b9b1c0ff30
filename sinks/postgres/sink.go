package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/sinks"
)

// Sink applies changes to one database over one connection. It serves one run.
type Sink struct {
	cfg    Config
	to     *pgx.ConnConfig
	conn   *pgx.Conn
	taken  map[sinks.Partition]held // as they were when they were taken, or are durable since
	filled map[sinks.Partition]bool // those that the open transaction applies rows of
	open   bool                     // a transaction is open: batches with More were written

	plans   map[*sinks.Table]*plan
	stages  int // numbers names of temporary tables and prepared statements
	rows    sinks.Rows
	scratch []byte
	spans   []span
	schema  func(context.Context, int32) (string, error) // of the batch
}

var _ sinks.Sink = (*Sink)(nil)

// New makes a sink. It checks the configuration and connects to nothing: Take does.
func New(cfg Config) (*Sink, error) {
	to, err := cfg.connection()
	if err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Sink{cfg: cfg, to: to, plans: make(map[*sinks.Table]*plan)}, nil
}

func (s *Sink) user() string { return s.to.User }

// closeTimeout bounds how long taking leave of the server may take.
const closeTimeout = 5 * time.Second

// Close closes the connection; a transaction that is open is undone.
func (s *Sink) Close() error {
	if s.conn == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := s.conn.Close(ctx)
	s.conn = nil
	if err != nil {
		return fmt.Errorf("close the connection to the target: %w", err)
	}
	return nil
}

// Take connects if it has to, and raises the fences; see sinks.Sink.
func (s *Sink) Take(ctx context.Context, ps []sinks.Partition) (map[sinks.Partition]sinks.Position, error) {
	if s.open {
		return nil, errors.New("take partitions: a source transaction is half applied")
	}
	if s.conn == nil {
		conn, err := pgx.ConnectConfig(ctx, s.to)
		if err != nil {
			return nil, connectError(&s.to.Config, err)
		}
		s.conn = conn
	}
	if err := ensurePositions(ctx, s.conn); err != nil {
		return nil, s.positionError(err)
	}
	taken, err := take(ctx, s.conn, &s.cfg, ps)
	if err != nil {
		return nil, s.positionError(err)
	}
	s.taken = taken
	positions := make(map[sinks.Partition]sinks.Position)
	for p, h := range taken {
		positions[p] = h.at
	}
	return positions, nil
}

func (s *Sink) positionError(err error) error {
	err = fmt.Errorf("take the partitions: %w", err)
	if sqlState(err) == stateNoPrivilege {
		return &Error{err, fmt.Sprintf("the sink keeps its position in schema tailrace: GRANT CREATE ON DATABASE %s TO %s; or, as an owner: CREATE SCHEMA tailrace AUTHORIZATION %s;",
			quoteIdent(s.to.Database), quoteIdent(s.user()), quoteIdent(s.user())), true, codeEnvironment}
	}
	return writeError(s.user(), `tailrace."position"`, err)
}

// seriesMost is up to how many changes of a batch that can be divided are written one by one,
// which names the row that is refused; larger ones are halved before.
const seriesMost = 32

// Apply writes a batch and its positions in one transaction; see sinks.Sink.
func (s *Sink) Apply(ctx context.Context, b *sinks.Batch) error {
	s.schema = b.Schema
	s.fill(b)
	if err := s.begin(ctx, b); err != nil {
		return err
	}
	a := &applier{s: s}
	err := a.apply(ctx, b.Changes)
	if errors.Is(err, errOrder) || refused(err) && (!b.Divisible || len(b.Changes) <= seriesMost) {
		a, err = s.inSeries(ctx, b, err)
	}
	if err == nil && !b.More {
		a.at, err = nil, s.commit(ctx)
	}
	if b.Divisible && isOfRow(err) {
		return s.giveBack(ctx, b, a, err)
	}
	return err
}

// giveBack undoes a batch with a row that is refused, and names the row if it is known.
func (s *Sink) giveBack(ctx context.Context, b *sinks.Batch, a *applier, why error) error {
	if err := s.exec(ctx, "rollback"); err != nil {
		return fmt.Errorf("undo: %w", err)
	}
	s.open = false
	s.forget()
	at := a.at
	if !a.series {
		at = nil
	}
	if len(b.Changes) == 1 {
		at = b.Changes[0]
	}
	if at == nil {
		return why
	}
	var h interface{ Hint() string }
	errors.As(why, &h)
	return &sinks.Refused{Change: at, Err: why, Advice: h.Hint()}
}

// forget lets go of plans and temporary tables that were made in what was undone.
func (s *Sink) forget() {
	maps.DeleteFunc(s.plans, func(_ *sinks.Table, p *plan) bool { return !p.durable })
	for _, p := range s.plans {
		if !p.kept {
			p.stage = ""
		}
		if !p.keyKept {
			p.keyStage = ""
		}
		p.dirty, p.keyDirty = true, true // of an earlier piece, if the transaction goes on
		p.fold.reset()
	}
}

// fill notes the partitions of which b has rows.
func (s *Sink) fill(b *sinks.Batch) {
	if !s.open {
		s.filled = make(map[sinks.Partition]bool)
	}
	for _, c := range b.Changes {
		switch c.Op {
		case sinks.OpCreate, sinks.OpRead, sinks.OpUpdate, sinks.OpDelete:
			s.filled[c.Partition] = true
		}
	}
}

// begin begins a transaction, if none is open, and claims the positions: from here on a
// successor waits, and if there is one already, nothing is written.
func (s *Sink) begin(ctx context.Context, b *sinks.Batch) error {
	sql := "savepoint folded"
	if !s.open {
		sql = "begin; set constraints all deferred; savepoint folded"
	}
	if err := s.exec(ctx, sql); err != nil {
		return writeError(s.user(), "", fmt.Errorf("begin: %w", err))
	}
	wasOpen := s.open
	s.open = true
	var err error
	if b.More && !wasOpen {
		err = hold(ctx, s.conn, s.cfg.Name, s.taken)
	} else if !b.More {
		err = move(ctx, s.conn, s.cfg.Name, s.taken, s.filled, b.Positions)
	}
	if err != nil {
		return writeError(s.user(), `tailrace."position"`, err)
	}
	// What comes next may be undone, the positions not.
	return s.exec(ctx, "release savepoint folded; savepoint folded")
}

// inSeries undoes what was written of b and writes it change by change, in the source's
// order, which a constraint or a changed key needs.
func (s *Sink) inSeries(ctx context.Context, b *sinks.Batch, why error) (*applier, error) {
	a := &applier{s: s, series: true}
	if err := s.exec(ctx, "rollback to savepoint folded"); err != nil {
		return a, fmt.Errorf("undo: %w", err)
	}
	s.forget()
	s.cfg.Log.Debug("applies a batch change by change", "sink", s.cfg.Name, "changes", len(b.Changes), "why", why)
	return a, a.apply(ctx, b.Changes)
}

func (s *Sink) commit(ctx context.Context) error {
	sinks.Failpoint("sink-before-commit")
	if err := s.exec(ctx, "commit"); err != nil {
		return writeError(s.user(), "", fmt.Errorf("commit: %w", err))
	}
	sinks.Failpoint("sink-after-commit")
	s.open = false
	for _, p := range s.plans {
		p.dirty, p.keyDirty = false, false
		p.durable, p.kept, p.keyKept = true, p.stage != "", p.keyStage != ""
	}
	for p := range s.filled {
		h := s.taken[p]
		h.filled = true
		s.taken[p] = h
	}
	return nil
}

func (s *Sink) exec(ctx context.Context, sql string) error {
	_, err := s.conn.PgConn().Exec(ctx, sql).ReadAll()
	return err
}
