package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/app"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/httpapi"
)

// Config is what a demo runs with.
type Config struct {
	Postgres string          // address of a running server; "": a private one is started
	For      time.Duration   // how long the workload runs; 0: until Finish
	Finish   <-chan struct{} // closed when a person has seen enough: the shop closes, and is compared; may be nil
	Progress io.Writer       // what a person sees meanwhile
	Live     bool            // Progress is a terminal
	Log      *slog.Logger    // of the parts
	Version  string
}

// The pace of a demo.
const (
	settle    = 90 * time.Second // for the snapshot, and for the last changes, to reach the target
	look      = 50 * time.Millisecond
	livePause = 300 * time.Millisecond
	linePause = 2 * time.Second
	alterAt   = 3 * time.Second // in a demo without an end
)

// ErrInterrupted is the end of a demo that was told to finish before there was anything to
// compare.
var ErrInterrupted = errors.New("the demo was interrupted")

// demo is one under way.
type demo struct {
	Config
	dir      string
	dbs      *databases
	work     workload
	view     view
	version  string // of the server
	process  app.View
	opened   chan struct{} // closed when the workload begins
	ended    chan struct{} // closed when the process has ended
	err      error         // why, once it has
	existing int64         // rows before the capture began
}

// Run shows the pipeline and compares both databases at the end. What it started and
// created is gone when it returns, also after ctx has ended.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	d := &demo{Config: cfg, view: view{out: cfg.Progress, live: cfg.Live}, opened: make(chan struct{}), ended: make(chan struct{})}
	ctx, release := d.untilFinish(ctx)
	defer release()
	r, err := d.run(ctx)
	if err != nil && errors.Is(context.Cause(ctx), ErrInterrupted) {
		return nil, fmt.Errorf("%w: %w", ErrInterrupted, err)
	}
	return r, err
}

// run puts everything up and takes it down.
func (d *demo) run(ctx context.Context) (result *Result, err error) {
	if d.dir, err = temporary(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	admin, stop, err := d.server(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	name := "tailrace_demo_" + strings.ToLower(rand.Text()[:8])
	if d.dbs, err = createDatabases(ctx, admin, name); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.dbs.drop()) }()
	d.work.address = d.dbs.source
	if d.existing, err = openShop(ctx, d.dbs.source); err != nil {
		return nil, err
	}
	return d.pipeline(ctx)
}

// untilFinish returns a context that Finish ends as long as the workload has not begun.
func (d *demo) untilFinish(parent context.Context) (ctx context.Context, release func()) {
	ctx, cancel := context.WithCancelCause(parent)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-d.Finish:
			cancel(ErrInterrupted)
		case <-d.opened:
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil); <-done }
}

// temporary makes the directory for everything. The server's user passes through it.
func temporary() (string, error) {
	base := os.TempDir()
	if os.Geteuid() == 0 && !passable(base) {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, "tailrace-demo-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o711)
}

// passable says whether every user may pass through a directory.
func passable(path string) bool {
	for ; ; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		if path == filepath.Dir(path) {
			return true
		}
	}
}

// server returns the address of the server, and how to end it.
func (d *demo) server(ctx context.Context) (*url.URL, func() error, error) {
	if d.Postgres != "" {
		u, err := url.Parse(d.Postgres)
		if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
			return nil, nil, &environmentError{"read --postgres", "write postgres://user:password@host:port/database", errors.New("it is not a PostgreSQL address")}
		}
		d.version = "PostgreSQL"
		return u, func() error { return nil }, nil
	}
	d.view.say("starting a private PostgreSQL")
	s, err := startServer(ctx, d.dir)
	if err != nil {
		return nil, nil, err
	}
	d.version = fmt.Sprintf("PostgreSQL %d", versionOf(ctx, s.bin))
	return s.url(), s.stop, nil
}

// pipeline runs the process, the workload and the comparison.
func (d *demo) pipeline(ctx context.Context) (*Result, error) {
	cfg, err := d.settings()
	if err != nil {
		return nil, err
	}
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	viewed := make(chan app.View, 1)
	go func() {
		defer close(d.ended)
		d.err = app.Run(working, cfg, app.Options{Version: d.Version, Log: d.Log, Watch: func(v app.View) { viewed <- v }})
	}()
	defer func() { stop(); <-d.ended }()
	select {
	case d.process = <-viewed:
	case <-d.ended:
		return nil, d.failed()
	}
	status := d.process.Status()
	d.view.say("the topics: tailrace topic list --brokers %s --registry-url %s", status.Broker.Address, status.Registry.URL)
	d.view.say("copying %d rows that are in the shop already", d.existing)
	if err := d.until(ctx, "the rows of the snapshot", func(s *httpapi.Status) (bool, error) {
		return snapshotted(s) >= uint64(d.existing), nil
	}); err != nil {
		return nil, err
	}
	if err := d.open(ctx); err != nil {
		return nil, err
	}
	return d.result(ctx)
}

// settings is the process's configuration: every address is a free port.
func (d *demo) settings() (*config.Config, error) {
	text := fmt.Sprintf(`broker: { embedded: { dir: %q, listen: "127.0.0.1:0", min_free: 1 } }
registry: { serve: "127.0.0.1:0" }
http: { listen: "127.0.0.1:0" }
captures:
  - name: shop
    postgres: { url: "${env:SOURCE}", slot: %s, tables: ["public.*"] }
sinks:
  - name: copy
    from: shop
    postgres: { url: "${env:TARGET}" }
`, filepath.Join(d.dir, "broker"), d.dbs.name)
	secrets := map[string]string{"SOURCE": d.dbs.source, "TARGET": d.dbs.target}
	return config.Parse("demo", []byte(text), func(name string) (string, bool) { v, ok := secrets[name]; return v, ok })
}

// failed is why the process ended by itself; d.ended is closed.
func (d *demo) failed() error {
	if d.err == nil {
		return errors.New("the pipeline ended by itself")
	}
	return d.err
}

// until waits for something that the status or the target shows.
func (d *demo) until(ctx context.Context, what string, reached func(*httpapi.Status) (bool, error)) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	deadline := time.After(settle)
	for {
		s := d.process.Status()
		if ok, err := reached(&s); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-d.ended:
			return d.failed()
		case <-deadline:
			return fmt.Errorf("wait for %s to reach the target: not there after %v; %s", what, settle, state(&s))
		}
	}
}

// open lets the shop work for its time, or until Finish, and shows it.
func (d *demo) open(ctx context.Context) error {
	alter, left := alterAt, "   Ctrl-C ends and compares"
	var over <-chan time.Time
	if d.For > 0 {
		alter, over, left = d.For/2, time.After(d.For), fmt.Sprintf(" of %v", d.For)
	}
	close(d.opened)
	working, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- d.work.run(working, alter) }()
	pause := linePause
	if d.view.live {
		pause = livePause
	}
	tick := time.NewTicker(pause)
	defer tick.Stop()
	d.draw(left)
	for {
		select {
		case <-tick.C:
			d.draw(left)
			continue
		case err := <-ended: // before its time
			stop()
			return or(err, context.Cause(ctx))
		case <-over:
		case <-d.Finish:
		case <-ctx.Done():
		case <-d.ended:
		}
		stop()
		if err := or(<-ended, context.Cause(ctx)); err != nil {
			return err
		}
		select {
		case <-d.ended:
			return d.failed()
		default:
			return nil
		}
	}
}

// draw shows the present state.
func (d *demo) draw(left string) {
	f := frame{server: d.version, left: left, status: d.process.Status(), latency: latency(d.process.Latencies())}
	f.counts, f.last = d.work.seen()
	d.view.show(&f)
}

// result waits for the last change to reach the target, then compares, once.
func (d *demo) result(ctx context.Context) (*Result, error) {
	if err := d.work.end(ctx); err != nil {
		return nil, err
	}
	target, err := connect(ctx, d.dbs.target)
	if err != nil {
		return nil, err
	}
	defer closeConn(target)
	if err := d.until(ctx, "the last change", func(*httpapi.Status) (there bool, err error) {
		err = target.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM closings WHERE id = $1)", lastClosing).Scan(&there)
		return there, err
	}); err != nil {
		return nil, err
	}
	d.draw("   comparing")
	tables, err := d.dbs.compare(ctx)
	if err != nil {
		return nil, err
	}
	s := d.process.Status()
	c, _ := d.work.seen()
	r := &Result{
		SnapshotRows: snapshotted(&s), Applied: appliedChanges(&s), Tables: tables, Equal: len(tables) > 0,
		Inserts: c.rows[insert], Updates: c.rows[update] + c.rows[rekey], Deletes: c.rows[remove],
		Transactions: c.transactions, DDL: c.ddl, keyChanges: c.rows[rekey], multiTable: c.multiTable,
		Latency: latency(d.process.Latencies()),
	}
	for _, t := range tables {
		r.Equal = r.Equal && t.Source == t.Target
	}
	return r, nil
}

// or returns the first error that is one.
func or(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
