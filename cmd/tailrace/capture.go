package main

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/app"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/httpapi"
)

// captureCommand holds the commands about captures.
func (c *cli) captureCommand() *cobra.Command {
	cmd := group(&cobra.Command{Use: "capture", Short: "See how captures and sinks are doing; lead a capture on after it has stopped"})
	cmd.AddCommand(c.captureStatusCommand(), c.captureResolveCommand())
	return cmd
}

// captureStatusCommand asks the running process how its captures are doing.
func (c *cli) captureStatusCommand() *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the running process says of its captures",
		Long:  "Show what the running process says of its captures. It is asked at http.listen of the\nconfiguration, or at --http-listen.",
		Args:  args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := c.httpSettings()
			if err != nil {
				return err
			}
			s, err := askStatus(cmd, h)
			if err != nil {
				return err
			}
			summary := "ready"
			if !s.Ready {
				summary = "not ready"
			}
			if check && !s.Ready && c.format == "json" {
				failed := &checkError{"not ready"}
				return c.refuse(cmd, s, failed)
			}
			if err := c.answer(cmd, summary, s, statusTable(s)); err != nil {
				return err
			}
			if len(s.Sinks) > 0 && c.format != "json" {
				fmt.Fprintln(c.out)
				if err := c.answer(cmd, summary, s, sinkTable(s)); err != nil {
					return err
				}
			}
			if err := c.statusBackfills(cmd, s); err != nil {
				return err
			}
			c.explain(s)
			if check && !s.Ready {
				return &checkError{"not ready"}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "exit with 4 if the process is not ready")
	return cmd
}

// statusBackfills shows the backfills of a status that have not ended, or have failed.
func (c *cli) statusBackfills(cmd *cobra.Command, s *httpapi.Status) error {
	for _, one := range s.Captures {
		if len(one.Backfills) == 0 || c.format == "json" {
			continue
		}
		fmt.Fprintf(c.out, "\nbackfills of %s:\n", printable(one.Name))
		if err := c.writeBackfills(cmd, one.Backfills, nil); err != nil {
			return err
		}
	}
	return nil
}

// refuse writes an answer to a check that failed.
func (c *cli) refuse(cmd *cobra.Command, result any, err error) error {
	f := c.describe(err, app.ExitCode(err))
	if werr := c.writeJSON(envelope{commandName(cmd), false, f.Message, result, f}); werr != nil {
		return werr
	}
	return &answeredError{err}
}

// httpSettings is where the running process answers, and how it wants to be asked.
func (c *cli) httpSettings() (*config.HTTP, error) {
	cfg, err := c.load()
	if err != nil {
		if c.overrides.HTTPListen == "" {
			return nil, err
		}
		cfg = &config.Config{} // a process that only the flag knows
	}
	h := cfg.HTTP
	h.Listen = or(c.overrides.HTTPListen, h.Listen)
	if _, port, err := net.SplitHostPort(h.Listen); err != nil || port == "0" {
		return nil, &usageError{fmt.Errorf("http.listen is %s, so the running process's address is not known here", h.Listen), "name it with --http-listen; the process has logged it"}
	}
	return &h, nil
}

// askStatus gets /status.
func askStatus(cmd *cobra.Command, h *config.HTTP) (*httpapi.Status, error) {
	parent := cmd.Context()
	if parent == nil {
		parent = context.Background()
	}
	return app.StatusOf(parent, h)
}

// statusTable is a status as lines and columns.
func statusTable(s *httpapi.Status) table {
	t := table{head: []string{"CAPTURE", "STATE", "SINCE", "RESTARTS", "POSITION", "LAG", "CHANGES", "LAST CHANGE", "RETAINED"}}
	for _, one := range s.Captures {
		var changes uint64
		for _, n := range one.Events {
			changes += n
		}
		last := "-"
		if one.LastEvent != nil {
			last = one.LastEvent.UTC().Format(time.RFC3339)
		}
		t.rows = append(t.rows, []string{
			one.Name, string(one.State), one.Since.UTC().Format(time.RFC3339), strconv.Itoa(one.Restarts),
			or(one.Position, "-"), strconv.FormatFloat(one.Lag, 'f', 1, 64) + "s", strconv.FormatUint(changes, 10), last, retained(one.Retained),
		})
	}
	return t
}

// retained writes how much log a database keeps, and how much of its bound that is.
func retained(r *capture.Retained) string {
	if r == nil {
		return "-"
	}
	if r.Lost {
		return "lost"
	}
	text := strconv.FormatFloat(float64(r.Bytes)/(1<<20), 'f', 1, 64) + " MiB"
	if ratio, ok := r.Headroom(); ok {
		text += fmt.Sprintf(" (%.0f%% of its bound)", 100*(1-ratio))
	}
	return text
}

// sinkTable is what a status says of sinks, as lines and columns.
func sinkTable(s *httpapi.Status) table {
	t := table{head: []string{"SINK", "STATE", "SINCE", "RESTARTS", "FROM", "LAG", "CHANGES", "TRANSACTIONS", "DEAD LETTERS"}}
	for _, one := range s.Sinks {
		var changes uint64
		for _, n := range one.Events {
			changes += n
		}
		parked := "-"
		if d := one.DeadLetters; d != nil {
			parked = strconv.Itoa(d.Letters)
		}
		t.rows = append(t.rows, []string{
			one.Name, string(one.State), one.Since.UTC().Format(time.RFC3339), strconv.Itoa(one.Restarts), one.From,
			strconv.FormatFloat(one.Lag, 'f', 1, 64) + "s", strconv.FormatUint(changes, 10), strconv.FormatUint(one.Transactions, 10), parked,
		})
	}
	return t
}

// explain writes errors and hints below the table.
func (c *cli) explain(s *httpapi.Status) {
	if c.format == "json" {
		return
	}
	problems := map[string]*httpapi.Problem{}
	for i := range s.Captures {
		problems["capture "+s.Captures[i].Name] = s.Captures[i].Error
	}
	for i := range s.Sinks {
		problems["sink "+s.Sinks[i].Name] = s.Sinks[i].Error
	}
	problems["registry"] = s.Registry.Error
	for _, part := range sortedKeys(problems) {
		if p := problems[part]; p != nil {
			fmt.Fprintf(c.out, "\n%s: %s\n", part, printable(p.Message))
			if p.Hint != "" {
				fmt.Fprintf(c.out, "hint: %s\n", printable(p.Hint))
			}
		}
	}
}

// sortedKeys returns a map's keys in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
