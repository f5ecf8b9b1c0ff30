package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/demo"
)

// unattended is how long a demo runs that nobody watches and for which no time was given.
const unattended = 30 * time.Second

// demoCommand shows a whole pipeline.
func (c *cli) demoCommand() *cobra.Command {
	var cfg demo.Config
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show a whole pipeline: a shop, captured and copied to a second database",
		Long: `Show a whole pipeline on this machine: a shop's database with rows already in it is
captured into the embedded broker and applied to a second database, while inserts, updates,
deletes, key changes, transactions over many tables and an ALTER TABLE happen. At the end
both databases are compared, table by table.

It needs PostgreSQL 14 or newer: that of --postgres, in which it makes two databases, or
the programs on this machine, with which it starts a server in a temporary directory. All
that it made is gone afterwards. It ends after --for; without, at Ctrl-C, or after 30 s if
standard error is not a terminal. A second Ctrl-C ends it without comparing.

With -o json the last line of standard output is one object with the counts. Exit codes: 0
both are equal and every kind of change occurred, 4 if not, 3 no PostgreSQL.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.demo(cmd, cfg) },
	}
	cmd.Flags().StringVar(&cfg.Postgres, "postgres", "", "address of a running server: postgres://user:password@host:port/database")
	cmd.Flags().DurationVar(&cfg.For, "for", 0, "how long the shop is open, as 20s")
	return cmd
}

// demo runs a demo and shows its result.
func (c *cli) demo(cmd *cobra.Command, cfg demo.Config) error {
	if cfg.For < 0 {
		return usagef(cmd, "--for must be positive")
	}
	cfg.Progress, cfg.Live, cfg.Version = c.err, terminal(c.err), thisBuild().Version
	cfg.Log = slog.New(slog.DiscardHandler)
	if level := c.overrides.LogLevel; level != "" {
		cfg.Live, cfg.Log = false, c.logger(config.Log{Level: level, Format: c.overrides.LogFormat})
	}
	if cfg.For == 0 && !cfg.Live {
		cfg.For = unattended
	}
	ctx, finish, release := c.twoSignals(cmd.Context())
	defer release()
	cfg.Finish = finish
	r, err := demo.Run(ctx, cfg)
	if ctx.Err() != nil || errors.Is(err, demo.ErrInterrupted) {
		return &interruptedError{}
	}
	if err != nil {
		return err
	}
	return c.showDemo(cmd, r)
}

// showDemo writes the result: an object on one line, or text.
func (c *cli) showDemo(cmd *cobra.Command, r *demo.Result) error {
	if c.format == "json" {
		if err := json.NewEncoder(c.out).Encode(r); err != nil {
			return err
		}
	} else if err := c.answer(cmd, r.String(), r, table{}); err != nil {
		return err
	}
	if missing := r.Missing(); len(missing) > 0 {
		failed := &checkError{strings.Join(missing, "; ")}
		if c.format == "json" {
			return &answeredError{failed}
		}
		return failed
	}
	return nil
}

// twoSignals returns a channel that the first SIGINT or SIGTERM closes, and a context that
// the second ends. A third ends the process. release gives the signals back.
func (c *cli) twoSignals(parent context.Context) (ctx context.Context, first <-chan struct{}, release func()) {
	if parent == nil {
		parent = context.Background()
	}
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 3)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	finish := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		n := 0
		for s := range signals {
			switch n++; n {
			case 1:
				close(finish)
			case 2:
				cancel(&signalError{s})
			default:
				c.exit(128 + int(s.(syscall.Signal)))
			}
		}
	})
	return ctx, finish, func() {
		signal.Stop(signals)
		close(signals)
		all.Wait()
		cancel(nil)
	}
}
