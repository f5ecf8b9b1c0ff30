package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/app"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/show"
	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/stream"
)

// tailFlags are the flags of topic tail.
type tailFlags struct {
	from      string
	count     int64
	partition int32
	toEnd     bool
}

// topicTailCommand prints a topic's records as they come.
func (c *cli) topicTailCommand() *cobra.Command {
	var f tailFlags
	cmd := &cobra.Command{
		Use:   "tail TOPIC",
		Short: "Print a topic's records, decoded",
		Long: `Print a topic's committed records, decoded with the schemas of the registry. What is not
the Avro that its schema says is shown as an error. Records of one partition come in
order; those of several partitions come mixed.

With -o json each record is one line of JSON: topic, partition, offset, timestamp, key,
value, tombstone, tailrace (the header by which gaps and repeats show), headers, error.`,
		Args: args("a topic"),
		RunE: func(cmd *cobra.Command, given []string) error {
			from, err := parseFrom(f.from)
			if err != nil {
				return usagef(cmd, "--from %s: %w", f.from, err)
			}
			return c.withClient(cmd, func(ctx context.Context, client *stream.Client, cfg *config.Config) error {
				reg, err := app.NewRegistry(cfg.Registry)
				if err != nil {
					return err
				}
				defer reg.Close()
				t := &tail{flags: f, from: from, client: client, topic: given[0],
					reader: show.NewReader(patient{reg}), out: c.printer()}
				return t.run(ctx)
			})
		},
	}
	cmd.Flags().StringVar(&f.from, "from", "beginning", "where to begin: beginning, end, an offset, or a time as 2026-01-31T12:00:00Z")
	cmd.Flags().Int64Var(&f.count, "count", 0, "stop after this many records; 0: never")
	cmd.Flags().Int32Var(&f.partition, "partition", -1, "read only this partition; -1: all")
	cmd.Flags().BoolVar(&f.toEnd, "to-end", false, "stop at the end of the topic as it is now")
	return cmd
}

// place is where reading begins: an offset, or the first record at or after a time.
type place struct {
	offset int64 // fromBeginning, fromEnd, or an offset
	time   int64 // milliseconds; 0: none
}

const (
	fromBeginning = -1
	fromEnd       = -2
)

// parseFrom reads --from.
func parseFrom(s string) (place, error) {
	switch s {
	case "beginning":
		return place{offset: fromBeginning}, nil
	case "end":
		return place{offset: fromEnd}, nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
		return place{offset: n}, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return place{}, errors.New("is neither beginning, end, an offset nor a time as 2026-01-31T12:00:00Z")
	}
	return place{offset: fromBeginning, time: t.UnixMilli()}, nil
}

// tail reads one topic. Each partition has its goroutine; they share the printer.
type tail struct {
	flags  tailFlags
	from   place
	client *stream.Client
	topic  string
	reader *show.Reader
	out    func(*show.Record) error

	mu      sync.Mutex
	printed int64
}

var errCounted = errors.New("as many records as asked for")

// run prints records until there are as many as asked for, the end is reached if that was
// asked for, or ctx ends.
func (t *tail) run(ctx context.Context) error {
	info, err := t.client.Topic(ctx, t.topic)
	if err != nil {
		return err
	}
	if t.flags.partition >= info.Partitions {
		return &usageError{fmt.Errorf("topic %s has no partition %d", t.topic, t.flags.partition), fmt.Sprintf("it has 0 to %d", info.Partitions-1)}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var readers sync.WaitGroup
	for p := range info.Partitions {
		if t.flags.partition >= 0 && p != t.flags.partition {
			continue
		}
		readers.Go(func() {
			if err := t.read(ctx, p); err != nil {
				cancel(err)
			}
		})
	}
	readers.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, errCounted) {
		return err
	}
	return nil
}

// read prints one partition.
func (t *tail) read(ctx context.Context, p int32) error {
	at, err := t.client.Offsets(ctx, t.topic, p)
	if err != nil {
		return err
	}
	from := t.from.offset
	switch from {
	case fromBeginning:
		from = at.Start
	case fromEnd:
		from = at.LastStable
	}
	print := func(r *stream.Record) error { return t.print(ctx, p, r) }
	if t.flags.toEnd {
		_, err = t.client.ReadToEnd(ctx, t.topic, p, min(from, at.LastStable), print)
		return err
	}
	r := t.client.NewReader(t.topic, p, from, stream.FetchOptions{})
	for {
		if err := r.Read(ctx, print); err != nil {
			return err
		}
	}
}

// print prints one record.
func (t *tail) print(ctx context.Context, p int32, r *stream.Record) error {
	if r.Timestamp < t.from.time {
		return nil
	}
	rec, err := t.reader.Record(ctx, t.topic, p, r)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.flags.count > 0 && t.printed >= t.flags.count {
		return errCounted
	}
	t.printed++
	if err := t.out(rec); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if t.printed == t.flags.count {
		return errCounted
	}
	return nil
}

// printer returns what writes records: lines of JSON, or lines with columns.
func (c *cli) printer() func(*show.Record) error {
	if c.format == "json" {
		enc := json.NewEncoder(c.out)
		enc.SetEscapeHTML(false)
		return func(r *show.Record) error { return enc.Encode(r) }
	}
	head := sync.OnceValue(func() error {
		_, err := fmt.Fprintf(c.out, recordLine, "PART", "OFFSET", "TIME", "OP", "N", "KEY  VALUE")
		return err
	})
	return func(r *show.Record) error {
		if err := head(); err != nil {
			return err
		}
		return printRecord(c.out, r)
	}
}

// recordLine has room for most; what is longer moves its line only.
const recordLine = "%4s  %8s  %-24s  %-3s  %8s  %s\n"

// printRecord writes one line.
func printRecord(w io.Writer, r *show.Record) error {
	n := ""
	if r.Mark != nil {
		n = strconv.FormatUint(r.Mark.N, 10)
	}
	op, value := summary(r)
	text := "-"
	if r.Key != nil {
		text = string(r.Key)
	}
	text += "  " + value
	if len(r.Headers) > 0 {
		var pairs []string
		for _, k := range sortedKeys(r.Headers) {
			pairs = append(pairs, k+"="+r.Headers[k])
		}
		text += "  [" + strings.Join(pairs, " ") + "]"
	}
	if r.Error != "" {
		text += "  ERROR " + r.Error
	}
	line := fmt.Sprintf(recordLine, strconv.Itoa(int(r.Partition)), strconv.FormatInt(r.Offset, 10), r.Timestamp, op, n, strings.ReplaceAll(printable(text), "\n", " "))
	_, err := io.WriteString(w, line)
	return err
}

// summary gives a record's operation and what of its value a person wants to see first:
// of an envelope the row, else all.
func summary(r *show.Record) (op, value string) {
	if r.Tombstone {
		return "-", "tombstone"
	}
	var e struct {
		Op     string
		Before json.RawMessage
		After  json.RawMessage
		Status string
	}
	if r.Value == nil {
		return "?", "-"
	}
	if err := json.Unmarshal(r.Value, &e); err != nil || e.Op == "" {
		return or(strings.ToLower(e.Status), "-"), string(r.Value)
	}
	switch {
	case len(e.After) > 0 && string(e.After) != "null":
		return e.Op, string(e.After)
	case len(e.Before) > 0 && string(e.Before) != "null":
		return e.Op, string(e.Before)
	}
	return e.Op, "-"
}

// or returns s, or def if s is empty.
func or(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// patient asks the registry again for a while when it does not answer.
type patient struct{ *registry.Client }

// SchemaByID implements show.SchemaSource.
func (p patient) SchemaByID(ctx context.Context, id int32) (string, error) {
	const tries = 6
	for pause, i := 100*time.Millisecond, 1; ; pause, i = 2*pause, i+1 {
		text, err := p.Client.SchemaByID(ctx, id)
		if err == nil || app.Final(err) || i == tries {
			return text, err
		}
		select {
		case <-ctx.Done():
			return "", err
		case <-time.After(pause):
		}
	}
}
