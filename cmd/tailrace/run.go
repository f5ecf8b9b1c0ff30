package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/app"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
)

// runCommand runs the configured captures.
func (c *cli) runCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Tail the configured databases until told to stop",
		Long: `Tail the configured databases until told to stop: start the embedded broker and the
registry if they are configured, recover, then write every change to its topic.

SIGTERM and SIGINT stop it: what is complete is written and confirmed to the database
first. A second signal ends it at once; nothing is lost by that, the next start recovers.

Under systemd (Type=notify) it says when it listens, when it reads its configuration again
and when it stops; with WatchdogSec it gives a sign of life as long as it can tell how all
its parts are doing.

SIGHUP reads the configuration again. A capture's list of tables is taken up while it runs;
any other difference is logged, and needs a restart. A file with mistakes changes nothing.

Exit codes: 0 after SIGTERM, 130 after SIGINT; 1 a capture stopped by an error that
starting again would not mend, 2 wrong usage or configuration, 3 the database, the broker
or the machine is not as needed.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.load()
			if err != nil {
				return err
			}
			log := c.logger(cfg.Log)
			told, err := newManager(c.env, log)
			if err != nil {
				return err
			}
			ctx, release := c.untilSignal(cmd.Context(), func(s os.Signal) {
				log.Info("stopping: what is complete is written first; a second signal ends it at once", "signal", s.String())
				told.stopping()
			})
			defer release()
			reload, ignore := c.reloads(log, told)
			defer ignore()
			working, end := context.WithCancel(context.WithoutCancel(ctx)) // while it stops, too
			var watching sync.WaitGroup
			defer watching.Wait()
			defer end()
			err = app.Run(ctx, cfg, app.Options{Version: thisBuild().Version, Log: log, Reload: reload, Watch: func(v app.View) {
				told.ready()
				watching.Go(func() { told.watch(working, func() { v.Status() }) })
			}})
			if err == nil {
				log.Info("stopped")
				return c.interruption(ctx)
			}
			return err
		},
	}
}

// reloads passes on the configuration as SIGHUP has it read again, unless it has mistakes.
// told hears of it. release gives the signal back.
func (c *cli) reloads(log *slog.Logger, told *manager) (configs <-chan *config.Config, release func()) {
	signals, out := make(chan os.Signal, 1), make(chan *config.Config)
	signal.Notify(signals, syscall.SIGHUP)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-signals:
			}
			var cfg *config.Config
			var err error
			told.reload(func() { cfg, err = c.load() })
			if err != nil {
				refuseReload(log, err)
				continue
			}
			select {
			case out <- cfg:
			case <-stop:
				return
			}
		}
	}()
	return out, func() {
		signal.Stop(signals)
		close(stop)
		<-done
	}
}

// refuseReload logs why a configuration was not taken up, with every mistake in it.
func refuseReload(log *slog.Logger, err error) {
	var bad *config.Error
	if !errors.As(err, &bad) {
		log.Error("the configuration was not taken up: nothing has changed", "error", err, "hint", app.Hint(err))
		return
	}
	for _, f := range bad.Findings {
		log.Error("a mistake in the configuration", "code", f.Code, "path", f.Path, "line", f.Line, "message", f.Message, "suggestion", f.Suggestion)
	}
	log.Error("the configuration was not taken up: nothing has changed", "mistakes", len(bad.Findings), "hint", app.Hint(err))
}

// signalError is why a context ended: a signal came.
type signalError struct{ signal os.Signal }

// Error implements error.
func (e *signalError) Error() string { return "received " + e.signal.String() }

// untilSignal returns a context that ends at SIGINT or SIGTERM, after told was called. A
// second signal ends the process. release gives the signals back.
func (c *cli) untilSignal(parent context.Context, told func(os.Signal)) (ctx context.Context, release func()) {
	if parent == nil {
		parent = context.Background()
	}
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s, ok := <-signals
		if !ok {
			return
		}
		told(s)
		cancel(&signalError{s})
		if s, ok = <-signals; ok {
			c.exit(128 + int(s.(syscall.Signal)))
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(signals)
		<-done
		cancel(nil)
	}
}

// interruption is the error of a command that SIGINT ended; nil for any other end.
func (c *cli) interruption(ctx context.Context) error {
	var s *signalError
	if errors.As(context.Cause(ctx), &s) && s.signal == os.Interrupt {
		return &interruptedError{}
	}
	return nil
}
