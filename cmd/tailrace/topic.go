package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/app"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	"github.com/tailrace/tailrace/stream"
)

// topicCommand holds the commands about topics.
func (c *cli) topicCommand() *cobra.Command {
	cmd := group(&cobra.Command{Use: "topic", Short: "List topics, read their records"})
	cmd.AddCommand(c.topicListCommand(), c.topicTailCommand())
	return cmd
}

// topicLine is one topic of topic list.
type topicLine struct {
	Name        string `json:"name"`
	Partitions  int32  `json:"partitions"`
	Replication int16  `json:"replication"`
	Records     int64  `json:"records"` // offsets between the start and the last stable one: records, markers, and what compaction has removed between them
}

// topicListCommand lists the broker's topics.
func (c *cli) topicListCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List topics with their partitions and sizes",
		Args:  args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withClient(cmd, func(ctx context.Context, client *stream.Client, _ *config.Config) error {
				lines, err := topicLines(ctx, client, all)
				if err != nil {
					return err
				}
				t := table{head: []string{"TOPIC", "PARTITIONS", "REPLICATION", "RECORDS"}}
				for _, l := range lines {
					t.rows = append(t.rows, []string{l.Name, strconv.Itoa(int(l.Partitions)), strconv.Itoa(int(l.Replication)), strconv.FormatInt(l.Records, 10)})
				}
				return c.answer(cmd, count(len(lines), "topic"), map[string]any{"topics": lines}, t)
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "also those that only tailrace and Kafka use (names that begin with _)")
	return cmd
}

// topicLines asks the broker for its topics.
func topicLines(ctx context.Context, client *stream.Client, all bool) ([]topicLine, error) {
	topics, err := client.Topics(ctx)
	if err != nil {
		return nil, err
	}
	lines := []topicLine{}
	for _, t := range topics {
		if !all && (t.Internal || strings.HasPrefix(t.Name, "_")) {
			continue
		}
		line := topicLine{Name: t.Name, Partitions: t.Partitions, Replication: t.Replication}
		for p := range t.Partitions {
			at, err := client.Offsets(ctx, t.Name, p)
			if err != nil {
				return nil, err
			}
			line.Records += at.LastStable - at.Start
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// withClient calls fn with a client of the configured broker, until it ends or a signal
// comes.
func (c *cli) withClient(cmd *cobra.Command, fn func(context.Context, *stream.Client, *config.Config) error) error {
	return c.withClientFor(cmd, 0, fn)
}

// withClientFor is withClient with a client that tries for so long to reach the broker; 0: as
// long as others do.
func (c *cli) withClientFor(cmd *cobra.Command, patience time.Duration, fn func(context.Context, *stream.Client, *config.Config) error) error {
	cfg, err := c.loadOrFlags(cmd)
	if err != nil {
		return err
	}
	settings, err := app.ClientConfig(cfg.Broker)
	if err != nil {
		return err
	}
	settings.Timeout = patience
	client, err := stream.NewClient(settings)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, release := c.untilSignal(cmd.Context(), func(os.Signal) {})
	defer release()
	err = fn(ctx, client, cfg)
	if ctx.Err() != nil {
		return c.interruption(ctx)
	}
	if err != nil && app.ExitCode(err) == app.ExitEnvironment && cfg.Broker.Embedded != nil && app.Hint(err) != "" {
		return &hintedError{err, fmt.Sprintf("the embedded broker answers on %s while `tailrace run` runs", cfg.Broker.Embedded.Listen)}
	}
	return err
}

// hintedError is an error with a better hint than its own.
type hintedError struct {
	err  error
	hint string
}

// Error implements error.
func (e *hintedError) Error() string { return e.err.Error() }

// Unwrap gives the cause.
func (e *hintedError) Unwrap() error { return e.err }

// Hint says what to do.
func (e *hintedError) Hint() string { return e.hint }
