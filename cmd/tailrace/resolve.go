package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/app"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/audit"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/httpapi"
	"github.com/tailrace/tailrace/sinks"
)

// decision is what the commands have that lead on from a stop.
type decision struct {
	reason   string
	yes, dry bool

	of     string // "capture shop"
	id     string
	effect any
	told   bool // it is in the audit log
}

func (d *decision) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&d.reason, "reason", "", "why, for the audit log")
	f.BoolVar(&d.yes, "yes", false, "do not ask")
	f.BoolVar(&d.dry, "dry-run", false, "only say what it would do")
}

const longResolve = `It says what will be lost or read again, and asks; --yes answers, --dry-run ends there. What
was decided, by whom, and what became of it goes into the audit log, see tailrace audit.
The %s must have stopped. If its process still runs for others, it starts it again by
itself; else start it: tailrace run.`

// captureResolveCommand leads a capture on after a stop.
func (c *cli) captureResolveCommand() *cobra.Command {
	var d decision
	var name, skip string
	var way capture.Decision
	cmd := &cobra.Command{
		Use:   "resolve --new-epoch | --skip-to POSITION | --accept-schema SUBJECT | --repartition TOPIC",
		Short: "Lead a capture on after it has stopped for good",
		Long: `Lead a capture on after it has stopped for good. The error that it stopped with names the
decision that leads on:

  --new-epoch      what the topics hold and what the log says cannot be brought together (the
                   log is lost, the database was restored, records are gone): the tables are
                   read anew, after a TRUNCATE in each topic; with snapshot: never only
                   what changes from then on
  --skip-to        leave out what the log has up to a position, such as a transaction that
                   cannot be decoded
  --accept-schema  register the next schema of a subject although the registry finds it
                   incompatible; once
  --repartition    use all partitions of a topic that was given more; its keys move, so that
                   it is a new epoch

` + fmt.Sprintf(longResolve, "capture"),
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if skip != "" {
				at, err := capture.ParsePosition(skip)
				if err != nil {
					return usagef(cmd, "--skip-to: %w", err)
				}
				way.SkipTo = &at
			}
			return c.resolve(cmd, func(ctx context.Context, t *app.Tools, cfg *config.Config) error {
				name, err := captureName(cfg, name)
				if err != nil {
					return err
				}
				i := slices.IndexFunc(cfg.Captures, func(c config.Capture) bool { return c.Name == name })
				if i < 0 {
					return &usageError{fmt.Errorf("the configuration has no capture %q", name), "it must have it: the decision is about its database and its topics"}
				}
				d.of = "capture " + name
				if err := c.stopped(ctx, t, cfg, d.of); err != nil {
					return err
				}
				err = t.ResolveCapture(ctx, &cfg.Captures[i], way, func(ctx context.Context, e *capture.Effect) error {
					return c.agree(ctx, cmd, t, &d, e, captureEffect(e))
				})
				return c.decided(ctx, cmd, t, &d, err)
			})
		},
	}
	d.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&name, "capture", "", "name of the capture; may be left out if the configuration has one")
	f.BoolVar(&way.NewEpoch, capture.WayEpoch, false, "begin anew, in a new epoch")
	f.StringVar(&skip, capture.WaySkip, "", "position in the log from which on it is read, as the error of the capture names it (16/B374D848)")
	f.StringVar(&way.AcceptSchema, capture.WaySchema, "", "subject whose next schema is registered, whatever the registry says of it")
	f.StringSliceVar(&way.Repartition, capture.WayKeys, nil, "topic whose keys go to all its partitions from now on")
	return cmd
}

// sinkCommand holds the commands about sinks.
func (c *cli) sinkCommand() *cobra.Command {
	cmd := group(&cobra.Command{Use: "sink", Short: "Lead a sink on after it has stopped; capture status shows how sinks are doing"})
	cmd.AddCommand(c.sinkResolveCommand())
	return cmd
}

// sinkResolveCommand leads a sink on after a stop.
func (c *cli) sinkResolveCommand() *cobra.Command {
	var d decision
	var name string
	var skip []string
	var way sinks.Decision
	cmd := &cobra.Command{
		Use:   "resolve --accept-gap | --skip-to TOPIC/PARTITION@OFFSET | --from-beginning",
		Short: "Lead a sink on after it has stopped for good",
		Long: `Lead a sink on after it has stopped for good. The error that it stopped with names the
decision that leads on:

  --accept-gap      records are missing, or a topic was made anew: go on with what is there
  --skip-to         leave out what a partition has up to an offset, such as a change that the
                    target refuses; of the topic of transactions: whole source transactions
  --from-beginning  forget how far the target is: all that the topics hold is applied again

` + fmt.Sprintf(longResolve, "sink"),
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, text := range skip {
				p, offset, err := parsePosition(text)
				if err != nil {
					return usagef(cmd, "--skip-to: %w", err)
				}
				if way.SkipTo == nil {
					way.SkipTo = make(map[sinks.Partition]int64)
				}
				way.SkipTo[p] = offset
			}
			return c.resolve(cmd, func(ctx context.Context, t *app.Tools, cfg *config.Config) error {
				name, _, err := sinkNamed(cfg, name)
				if err != nil {
					return err
				}
				i := slices.IndexFunc(cfg.Sinks, func(s config.Sink) bool { return s.Name == name })
				if i < 0 {
					return &usageError{fmt.Errorf("the configuration has no sink %q", name), "it must have it: the decision is written into its target"}
				}
				d.of = "sink " + name
				if err := c.stopped(ctx, t, cfg, d.of); err != nil {
					return err
				}
				err = t.ResolveSink(ctx, &cfg.Sinks[i], way, func(ctx context.Context, e *sinks.Effect) error {
					return c.agree(ctx, cmd, t, &d, e, sinkEffect(e))
				})
				return c.decided(ctx, cmd, t, &d, err)
			})
		},
	}
	d.flags(cmd)
	sinkFlag(cmd, &name)
	f := cmd.Flags()
	f.BoolVar(&way.AcceptGap, sinks.WayGap, false, "go on although records are missing")
	f.StringSliceVar(&skip, sinks.WaySkip, nil, "offset from which on a partition is applied, as the error of the sink names it (shop.public.orders/0@18)")
	f.BoolVar(&way.FromBeginning, sinks.WayBeginning, false, "apply all that the topics hold again")
	return cmd
}

// resolve calls fn with the broker and the registry of the configuration, whether a process
// serves them or not.
func (c *cli) resolve(cmd *cobra.Command, fn func(context.Context, *app.Tools, *config.Config) error) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	ctx, release := c.untilSignal(cmd.Context(), func(os.Signal) {})
	defer release()
	quiet := cfg.Log
	quiet.Level = "warn"
	t, err := app.OpenTools(ctx, cfg, thisBuild().Version, c.logger(quiet))
	if err == nil {
		defer t.Close()
		err = fn(ctx, t, cfg)
	}
	if ctx.Err() != nil && !answered(err) {
		return c.interruption(ctx)
	}
	return err
}

func answered(err error) bool {
	var a *answeredError
	return errors.As(err, &a)
}

// stopped makes sure that a part does not run, as far as a process that shares the broker says.
// On the embedded broker nothing else keeps two from writing at once.
func (c *cli) stopped(ctx context.Context, t *app.Tools, cfg *config.Config, of string) error {
	if !t.Shared() {
		return nil
	}
	s, err := c.askRunning(ctx, cfg)
	if err != nil {
		if t.Embedded() {
			return &hintedError{fmt.Errorf("a process has the embedded broker, and does not say whether %s has stopped: %w", of, err), "name its address with --http-listen, or stop it"}
		}
		return nil
	}
	if state := stateOf(s, of); state != "" && state != httpapi.Stopped {
		return &usageError{fmt.Errorf("%s is %s: it has not stopped for good", of, state), "see `tailrace capture status`; to decide all the same, stop its process first"}
	}
	return nil
}

// askRunning asks the process that the configuration describes.
func (c *cli) askRunning(ctx context.Context, cfg *config.Config) (*httpapi.Status, error) {
	h := cfg.HTTP // --http-listen is in it
	return app.StatusOf(ctx, &h)
}

// stateOf returns what a status says of a part; "" if it has it not.
func stateOf(s *httpapi.Status, of string) httpapi.State {
	for i := range s.Captures {
		if "capture "+s.Captures[i].Name == of {
			return s.Captures[i].State
		}
	}
	for i := range s.Sinks {
		if "sink "+s.Sinks[i].Name == of {
			return s.Sinks[i].State
		}
	}
	return ""
}

var errDryRun = errors.New("nothing was done")

// agree says what a decision does, asks, and notes it in the audit log.
func (c *cli) agree(ctx context.Context, cmd *cobra.Command, t *app.Tools, d *decision, effect any, lines []string) error {
	d.effect = effect
	if d.dry {
		return errDryRun
	}
	if c.format != "json" {
		for _, line := range lines {
			fmt.Fprintln(c.err, printable(line))
		}
	}
	if err := c.confirm(cmd, d.yes, "Do it?"); err != nil {
		return err
	}
	d.id = newID()
	_, err := audit.Append(ctx, t.Client(), d.entry(cmd, audit.Decided, nil))
	d.told = err == nil
	return err
}

// entry is one for the audit log.
func (d *decision) entry(cmd *cobra.Command, phase string, err error) audit.Entry {
	e := audit.Entry{ID: d.id, At: time.Now().UTC(), By: whoami(), Action: commandName(cmd), Of: d.of, Phase: phase}
	switch phase {
	case audit.Decided:
		e.Reason = d.reason
		e.Effect, _ = json.Marshal(d.effect) // effects hold nothing that JSON cannot
	case audit.Failed:
		e.Error = err.Error()
	}
	return e
}

// resolved is the result of a decision.
type resolved struct {
	ID     string `json:"id,omitempty"` // in the audit log
	Of     string `json:"of"`
	Done   bool   `json:"done"`
	Effect any    `json:"effect"`
}

// decided notes what became of a decision.
func (c *cli) decided(ctx context.Context, cmd *cobra.Command, t *app.Tools, d *decision, err error) error {
	if errors.Is(err, errDryRun) {
		lines := effectLines(d.effect)
		return c.answer(cmd, strings.Join(append(lines, "nothing was done: --dry-run"), "\n"), resolved{Of: d.of, Effect: d.effect}, table{})
	}
	if d.told {
		phase := audit.Done
		if err != nil {
			phase = audit.Failed
		}
		if _, aerr := audit.Append(context.WithoutCancel(ctx), t.Client(), d.entry(cmd, phase, err)); aerr != nil {
			err = errors.Join(err, aerr)
		}
	}
	if err != nil {
		return err
	}
	then := "start it: tailrace run"
	if t.Shared() && t.Embedded() {
		then = "its process starts it again"
	}
	return c.answer(cmd, fmt.Sprintf("done, as %s in the audit log; %s", d.id, then), resolved{d.id, d.of, true, d.effect}, table{})
}

// effectLines writes either effect for people.
func effectLines(effect any) []string {
	switch e := effect.(type) {
	case *capture.Effect:
		return captureEffect(e)
	case *sinks.Effect:
		return sinkEffect(e)
	}
	return nil
}
