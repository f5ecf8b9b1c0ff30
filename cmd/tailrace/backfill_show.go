package main

import (
	"context"
	"fmt"
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
			return c.withClient(cmd, func(ctx context.Context, client *stream.Client, cfg *config.Config) error {
				name, err := captureName(cfg, r.capture)
				if err != nil {
					return err
				}
				list, err := readBackfills(ctx, client, name)
				if err != nil {
					return err
				}
				return c.writeBackfills(cmd, list)
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
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, given []string) error {
			return c.withClient(cmd, func(ctx context.Context, client *stream.Client, cfg *config.Config) error {
				name, err := captureName(cfg, r.capture)
				if err != nil {
					return err
				}
				for {
					list, err := chosenBackfills(ctx, client, name, given)
					if err != nil {
						return err
					}
					if err := c.writeBackfills(cmd, list); err != nil || !watch || allAtRest(list) {
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

// chosenBackfills returns the one that is asked for, or all that are not done.
func chosenBackfills(ctx context.Context, client *stream.Client, name string, given []string) ([]capture.Backfill, error) {
	if len(given) == 1 {
		b, err := findBackfill(ctx, client, name, given[0])
		if err != nil {
			return nil, err
		}
		return []capture.Backfill{*b}, nil
	}
	list, err := readBackfills(ctx, client, name)
	if err != nil {
		return nil, err
	}
	var open []capture.Backfill
	for _, b := range list {
		if !b.State.Ended() || b.State == capture.BackfillFailed {
			open = append(open, b)
		}
	}
	return open, nil
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

// writeBackfills writes backfills, with errors and hints below.
func (c *cli) writeBackfills(cmd *cobra.Command, list []capture.Backfill) error {
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
		t.rows = append(t.rows, []string{b.ID, b.Table(), string(b.State), bar(&b), strconv.FormatInt(b.Read, 10), rate, eta, b.Cause})
	}
	if err := c.answer(cmd, count(len(list), "backfill"), map[string]any{"backfills": shown}, t); err != nil || c.format == "json" {
		return err
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

// bar draws the progress.
func bar(b *capture.Backfill) string {
	p, ok := percent(b)
	if !ok {
		return "-"
	}
	full := int(p / 100 * barWidth)
	return fmt.Sprintf("[%s%s] %3.0f%%", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), p)
}
