package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/schemas"
)

var _ capture.Source = (*Source)(nil)

// connector is Debezium's name for this kind of source.
const connector = "postgresql"

// idleAfter is how long nothing must come before the Emitter is told that the log is idle.
const idleAfter = 200 * time.Millisecond

// Source reads the log of one database. It implements capture.Source.
type Source struct {
	cfg     Config
	log     *slog.Logger
	metrics metrics
	catalog catalog
	confirm *confirmation
	wake    wakeup
	listing listing

	mu       sync.Mutex
	conn     *session  // of Run, until Close
	prepared *prepared // what Prepare left for Snapshot
}

// New returns a source. It connects when Inspect is called. Its errors are those of
// Config.Validate.
func New(cfg Config) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure the PostgreSQL source: %w", err)
	}
	m, err := newMetrics(cfg.Registerer, cfg.Name)
	if err != nil {
		return nil, fmt.Errorf("configure the PostgreSQL source: %w", err)
	}
	s := &Source{cfg: cfg, log: cfg.logger(), metrics: m, confirm: newConfirmation()}
	s.catalog.cfg, s.listing.catalog.cfg = &s.cfg, &s.cfg
	s.listing.said = make(map[string]bool)
	return s, nil
}

// Confirm says that everything up to p is durable. It never blocks, and may be called from
// any goroutine until Close. A position before the one that Run began with is ignored.
func (s *Source) Confirm(p capture.Position) { s.confirm.raise(p.Offset) }

// Close tells the server for the last time what is durable, and gives up all connections.
func (s *Source) Close() error {
	s.mu.Lock()
	conn := s.conn
	s.conn = nil
	s.mu.Unlock()
	var err error
	if conn != nil {
		err = errors.Join(s.confirm.send(conn.Conn()), conn.terminate())
		if errors.Is(err, net.ErrClosed) {
			err = nil
		}
	}
	return errors.Join(err, s.endExport(), s.catalog.close(), s.listing.catalog.close())
}

// Run reads the log after from until ctx ends, see capture.Source. It leaves the
// connection open, so that what becomes durable after it can still be told by Close.
func (s *Source) Run(ctx context.Context, from capture.Position, out capture.Emitter) error {
	s.confirm.floor.Store(from.Offset)
	conn, err := s.replicate(ctx, from)
	if err != nil {
		return err
	}
	err = s.serve(ctx, conn, s.newStream(conn, from, out))
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return ctx.Err()
	}
	return err
}

// replicate connects, sees that the publication is as the configuration says, and starts
// the replication.
func (s *Source) replicate(ctx context.Context, from capture.Position) (*session, error) {
	if err := s.fitPublication(ctx); err != nil {
		return nil, err
	}
	conn, err := s.cfg.connectReplication(ctx)
	if err != nil {
		return nil, err
	}
	err = pglogrepl.StartReplication(ctx, conn.PgConn, s.cfg.Slot, pglogrepl.LSN(from.Offset), pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '1'", "publication_names " + quoteReplication(quoteIdent(s.cfg.Publication))},
	})
	if err != nil {
		return nil, errors.Join(s.startError(err), conn.terminate())
	}
	s.mu.Lock()
	s.conn = conn
	s.mu.Unlock()
	return conn, nil
}

func (s *Source) newStream(conn *session, from capture.Position, out capture.Emitter) *stream {
	st := s.newRows(conn.database, out)
	st.frames, st.lastCommit = newFrames(conn.reader), from.Offset
	st.pace = func(behind bool) { conn.socket.behind = behind }
	st.patience = func(short bool) {
		conn.socket.idleAfter = idleAfter
		if short {
			conn.socket.idleAfter = askGap
		}
	}
	st.reached(from.Offset)
	st.told = st.pos
	return st
}

// newRows returns a stream that knows how to write rows, and reads nothing.
func (s *Source) newRows(database string, out capture.Emitter) *stream {
	st := &stream{
		src: s, describeTable: s.catalog.describe, nulls: s.cfg.Unrepresentable == UnrepresentableNull,
		relations: make(map[uint32]*relation), current: make(map[string]*relation),
	}
	st.out = out
	st.source = schemas.NewSourceWriter(schemas.SourceConfig{
		Version: s.cfg.Version, Connector: connector, Name: s.cfg.Prefix, Database: database})
	return st
}

// serve reads and confirms until one of the two ends, and waits for the other.
func (s *Source) serve(ctx context.Context, conn *session, st *stream) error {
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(running, conn.socket.interrupt)()
	conn.socket.arm(st.out.Wait, st.out.Resume, idleAfter)
	s.wake.socket.Store(conn.socket)

	confirmed := make(chan error, 1)
	go func() {
		defer cancel()
		confirmed <- s.confirm.run(running, conn.Conn(), s.interval(conn))
	}()
	err := st.run(running)
	cancel()
	confirmErr := <-confirmed
	if confirmErr != nil && ctx.Err() == nil && errors.Is(err, context.Canceled) {
		return confirmErr // it was what ended the reading
	}
	return err
}

// interval is how often the server hears from us: before it wonders whether we live.
func (s *Source) interval(conn *session) time.Duration {
	d := s.cfg.StatusInterval
	if d == 0 {
		d = defaultStatusInterval
	}
	if conn.senderTimeout > 0 {
		d = min(d, conn.senderTimeout/3)
	}
	return d
}

// run reads messages until ctx ends or the log cannot be read.
func (s *stream) run(ctx context.Context) error {
	for {
		s.now = time.Now().UnixMicro()
		if err := s.drain(ctx); err != nil {
			return err
		}
		s.shrink()
		s.await()
		n, err := s.frames.fill()
		switch {
		case err == nil:
			s.src.metrics.read(n)
		case isTimeout(err):
			s.now = time.Now().UnixMicro()
			if err := s.tick(ctx); err != nil {
				return err
			}
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, io.EOF):
			return fmt.Errorf("read the log: %w", errServerEnded)
		default:
			return fmt.Errorf("read the log: %w", err)
		}
	}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// drain handles all messages that are there.
func (s *stream) drain(ctx context.Context) error {
	for {
		kind, b, ok, err := s.frames.next()
		if err != nil {
			return stop("what answers may be no PostgreSQL, or one that this version does not know; nothing was skipped", "%w", err)
		}
		if !ok {
			break
		}
		if err := s.message(ctx, kind, b); err != nil {
			return err
		}
	}
	if !s.open && (s.pos > s.told || s.src.wake.idle.Load()) {
		return s.idle(ctx)
	}
	return nil
}

// tick is called when nothing came for idleAfter, or less if somebody waits or has woken us.
func (s *stream) tick(ctx context.Context) error {
	if s.open || s.now-s.idleAt < idleAfter.Microseconds() && !s.src.wake.idle.Load() {
		return nil
	}
	return s.idle(ctx)
}

// metrics counts what comes over the network.
type metrics struct {
	bytes, reads prometheus.Counter
}

// newMetrics registers the counters; a later run of the same capture goes on with those of
// the run before.
func newMetrics(r prometheus.Registerer, name string) (m metrics, err error) {
	label := prometheus.Labels{"capture": name}
	m.bytes = prometheus.NewCounter(prometheus.CounterOpts{Name: "tailrace_postgres_received_bytes_total",
		Help: "Bytes of the log received.", ConstLabels: label})
	m.reads = prometheus.NewCounter(prometheus.CounterOpts{Name: "tailrace_postgres_reads_total",
		Help: "Reads from the connection that the log comes over.", ConstLabels: label})
	if r == nil {
		return m, nil
	}
	for _, c := range []*prometheus.Counter{&m.bytes, &m.reads} {
		var known prometheus.AlreadyRegisteredError
		switch err := r.Register(*c); {
		case errors.As(err, &known):
			*c, _ = known.ExistingCollector.(prometheus.Counter)
		case err != nil:
			return m, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) read(n int) {
	m.reads.Inc()
	m.bytes.Add(float64(n))
}

// startError classifies why the replication did not start.
func (s *Source) startError(err error) error {
	err = fmt.Errorf("start replication from slot %q: %w", s.cfg.Slot, err)
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return err
	}
	switch pg.Code {
	case stateObjectInUse:
		return err // it was free a moment ago: the next run waits for it, and says by whom it is held
	case stateUndefinedObject:
		return &Error{err, "the slot was dropped; changes since cannot be read: the way on is a new epoch", true, codeRuntime}
	case stateNotPrerequisite, stateUndefinedFile:
		return &Error{err, "the slot has lost the log that it needs; the way on is a new epoch", true, codeRuntime}
	case stateNoPrivilege:
		return &Error{err, fmt.Sprintf("as a superuser: ALTER ROLE %s REPLICATION;", quoteIdent(s.cfg.user())), true, codeEnvironment}
	}
	return err
}
