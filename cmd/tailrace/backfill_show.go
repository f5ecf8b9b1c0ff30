package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	"github.com/tailrace/tailrace/stream"
)

// backfillListCommand lists a capture's backfills.
func (c *cli) backfillListCommand() *cobra.Command {
	var r request
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List backfills, the oldest first",
		Args:  args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withClientFor(cmd, brokerPatience, func(ctx context.Context, client *stream.Client, cfg *config.Config) error {
				name, err := captureName(cfg, r.capture)
				if err != nil {
					return err
				}
				list, requests, err := chosenBackfills(ctx, client, name, nil, true)
				if err != nil {
					return err
				}
				return c.writeBackfills(cmd, list, requests)
			})
		},
	}
	r.flag(cmd)
	return cmd
}

// backfillStatusCommand shows how far backfills are.
func (c *cli) backfillStatusCommand() *cobra.Command {
	var r request
	var watch bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "status [ID]",
		Short: "Show how far backfills are: one, or those that have not ended or have failed",
		Long: `Show how far backfills are: one, or those that have not ended or have failed, and the
requests that the capture has not come to yet.

With --watch it is shown again and again until nothing is under way.`,
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) == 0 {
				return nil
			}
			return args("an id")(cmd, given)
		},
		RunE: func(cmd *cobra.Command, given []string) error {
			if every <= 0 {
				return usagef(cmd, "--every %s is no time to wait", every)
			}
			return c.withClientFor(cmd, brokerPatience, func(ctx context.Context, client *stream.Client, cfg *config.Config) error {
				name, err := captureName(cfg, r.capture)
				if err != nil {
					return err
				}
				for {
					list, requests, err := chosenBackfills(ctx, client, name, given, false)
					if err != nil {
						return err
					}
					if watch && terminal(c.out) && c.format != "json" {
						fmt.Fprint(c.out, "\x1b[H\x1b[2J") // to the top of an empty screen
					}
					if err := c.writeBackfills(cmd, list, requests); err != nil || !watch || len(requests) == 0 && allAtRest(list) {
						return err
					}
					select {
					case <-ctx.Done():
						return ctx.Err()
					case <-time.After(every):
					}
				}
			})
		},
	}
	r.flag(cmd)
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "again and again, until nothing is under way")
	cmd.Flags().DurationVar(&every, "every", time.Second, "time between two looks of --watch")
	return cmd
}

// chosenBackfills returns the one that is asked for, or those that are not done, or all; and
// what was requested of them, and waits for the capture.
func chosenBackfills(ctx context.Context, client *stream.Client, name string, given []string, all bool) ([]capture.Backfill, []capture.Command, error) {
	requests, err := capture.Requests(ctx, client, name) // first: one that is carried out meanwhile shows twice, not never
	if err != nil && !errors.Is(err, stream.ErrNoTopic) {
		return nil, nil, err
	}
	list, err := readBackfills(ctx, client, name)
	if err != nil {
		return nil, nil, err
	}
	if len(given) == 1 {
		list = slices.DeleteFunc(list, func(b capture.Backfill) bool { return b.ID != given[0] })
		requests = slices.DeleteFunc(requests, func(r capture.Command) bool { return or(r.Backfill, r.ID) != given[0] })
		if len(list)+len(requests) == 0 {
			return nil, nil, noBackfill(given[0])
		}
		return list, requests, nil
	}
	return slices.DeleteFunc(list, func(b capture.Backfill) bool {
		return !all && b.State.Ended() && b.State != capture.BackfillFailed
	}), requests, nil
}

// allAtRest says whether none of them is under way.
func allAtRest(list []capture.Backfill) bool {
	for _, b := range list {
		if b.State == capture.BackfillRunning || b.State == capture.BackfillWaiting {
			return false
		}
	}
	return true
}

// shownBackfill is a backfill as JSON shows it.
type shownBackfill struct {
	capture.Backfill
	Percent    *float64 `json:"percent,omitempty"` // of the rows that the database estimates
	RowsPerSec float64  `json:"rows_per_second"`
	ETASeconds *float64 `json:"eta_seconds,omitempty"`
}

// writeBackfills writes backfills, with errors and hints below, and requests that wait.
func (c *cli) writeBackfills(cmd *cobra.Command, list []capture.Backfill, requests []capture.Command) error {
	now := time.Now()
	shown := make([]shownBackfill, len(list))
	t := table{head: []string{"ID", "TABLE", "STATE", "PROGRESS", "ROWS", "ROWS/S", "ETA", "CAUSE"}}
	for i, b := range list {
		s := shownBackfill{Backfill: b, RowsPerSec: b.RowsPerSecond(now)}
		if p, ok := percent(&b); ok {
			s.Percent = &p
		}
		rate, eta := "-", "-"
		if b.State == capture.BackfillRunning {
			rate = strconv.FormatFloat(s.RowsPerSec, 'f', 0, 64)
		}
		if left, ok := b.Left(now); ok {
			seconds := left.Seconds()
			s.ETASeconds, eta = &seconds, left.Round(time.Second).String()
		}
		shown[i] = s
		t.rows = append(t.rows, []string{b.ID, b.Table(), string(b.State), progressText(&b, terminal(c.out)), strconv.FormatInt(b.Read, 10), rate, eta, b.Cause})
	}
	result := map[string]any{"backfills": shown, "requests": append([]capture.Command{}, requests...)}
	if err := c.answer(cmd, count(len(list), "backfill"), result, t); err != nil || c.format == "json" {
		return err
	}
	for _, r := range requests {
		what := r.Backfill
		if r.Verb == capture.VerbStart {
			what = r.ID + " of " + r.Namespace + "." + r.Name
		}
		fmt.Fprintf(c.out, "\nrequested at %s by %s, waits for the capture: %s\n", r.At.UTC().Format(time.RFC3339), printable(or(r.By, "-")), printable(r.Verb+" "+what))
	}
	for _, b := range list {
		if b.Error != "" {
			fmt.Fprintf(c.out, "\n%s: %s\n", printable(b.ID), printable(b.Error))
			if b.Hint != "" {
				fmt.Fprintf(c.out, "hint: %s\n", printable(b.Hint))
			}
		}
	}
	return nil
}

// percent returns how much of a table is read, as far as the database's estimate goes.
func percent(b *capture.Backfill) (float64, bool) {
	switch {
	case b.State == capture.BackfillDone:
		return 100, true
	case b.Estimate <= 0 || b.Where != "" || b.FromKey != nil || b.ToKey != nil:
		return 0, false
	}
	return min(100*float64(b.Read)/float64(b.Estimate), 99), true
}

const barWidth = 20

// progressText is the progress, drawn if a person looks at it.
func progressText(b *capture.Backfill, draw bool) string {
	p, ok := percent(b)
	switch {
	case !ok:
		return "-"
	case !draw:
		return fmt.Sprintf("%.0f%%", p)
	}
	full := int(p / 100 * barWidth)
	return fmt.Sprintf("[%s%s] %3.0f%%", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), p)
}

// progress returns what shows a backfill on standard error while it is waited for: a line that
// is written over on a terminal, else one now and then.
func (c *cli) progress() func(*capture.Backfill) {
	const pause = 10 * time.Second
	var next time.Time
	return func(b *capture.Backfill) {
		now, tty := time.Now(), terminal(c.err)
		if !tty && now.Before(next) {
			return
		}
		next = now.Add(pause)
		line := fmt.Sprintf("%s of %s: %s, %s, %d rows, %.0f a second", b.ID, b.Table(), b.State, progressText(b, tty), b.Read, b.RowsPerSecond(now))
		if left, ok := b.Left(now); ok {
			line += ", " + left.Round(time.Second).String() + " to go"
		}
		if tty {
			fmt.Fprintf(c.err, "\r\x1b[K%s", printable(line))
			return
		}
		fmt.Fprintln(c.err, printable(line))
	}
}
