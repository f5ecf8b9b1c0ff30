package workload

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/tailrace/tailrace/deploy/internal/judge"
)

// Config says how to write.
type Config struct {
	URL     string // of the database, which holds the tables of DDL
	Prefix  string // of the topics that the changes will be in
	Dir     string // for the writers' logs; new or empty
	Writers int
	Rate    float64 // changes per second, of all writers together
	Seed    uint64
	Filled  bool // the tables hold the rows of Fill
}

// Load is a workload that runs. Its methods may be called from any goroutine.
type Load struct {
	cfg     Config
	changes atomic.Int64
	hurry   atomic.Bool
}

// New makes a workload.
func New(cfg Config) *Load { return &Load{cfg: cfg} }

// Changes is how many changes were acknowledged so far.
func (l *Load) Changes() int64 { return l.changes.Load() }

// Hurry makes the writers write as fast as they can from now on.
func (l *Load) Hurry() { l.hurry.Store(true) }

// Run writes until stop is closed; transactions that have begun are ended. It returns
// early with the first error.
func (l *Load) Run(ctx context.Context, stop <-chan struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, l.cfg.Writers)
	var wg sync.WaitGroup
	for i := range l.cfg.Writers {
		wg.Go(func() {
			if errs[i] = l.write(ctx, i, stop); errs[i] != nil {
				cancel() // the others
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// write is one writer's life.
func (l *Load) write(ctx context.Context, number int, stop <-chan struct{}) (err error) {
	w, err := newWriter(ctx, number, &l.cfg, l.logPath(number))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		n, err := w.transaction(ctx)
		if err != nil {
			return err
		}
		l.changes.Add(int64(n))
		if !l.hurry.Load() {
			if err := w.think(ctx, n, l.cfg.Rate/float64(l.cfg.Writers)); err != nil {
				return err
			}
		}
	}
}

func (l *Load) logPath(writer int) string {
	return filepath.Join(l.cfg.Dir, fmt.Sprintf("writer-%d.jsonl", writer))
}

// Transactions reads what the writers have logged.
func (l *Load) Transactions() ([]judge.Transaction, error) {
	var out []judge.Transaction
	for i := range l.cfg.Writers {
		txs, err := readLog(l.logPath(i))
		if err != nil {
			return nil, err
		}
		out = append(out, txs...)
	}
	return out, nil
}

func readLog(path string) ([]judge.Transaction, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []judge.Transaction
	for r := bufio.NewReader(f); ; {
		line, err := r.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			var tx judge.Transaction
			if err := json.Unmarshal(line, &tx); err != nil {
				return nil, fmt.Errorf("read %s: %w", path, err)
			}
			out = append(out, tx)
		}
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
	}
}
