package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	"github.com/tailrace/tailrace/stream"
)

// backfillCommand holds the commands about reading tables beside their log.
func (c *cli) backfillCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "backfill",
		Short: "Read the rows that tables have, beside their log",
		Long: `Read the rows that tables have, in chunks, while their log is tailed. Requests go over the
capture's command topic: they need the broker, and no port of the process beside the
database. A capture that does not run carries them out when it does. list and status read
the capture's state topic, whether it runs or not.`,
	})
	cmd.AddCommand(c.backfillStartCommand(), c.backfillListCommand(), c.backfillStatusCommand(),
		c.backfillVerbCommand(capture.VerbPause, "Stop reading for now; what is written stays"),
		c.backfillVerbCommand(capture.VerbResume, "Go on with one that is paused or has failed, where it stood"),
		c.backfillVerbCommand(capture.VerbCancel, "End one for good; what is written stays"))
	return cmd
}

const (
	outcomePatience = 5 * time.Second // how long a command waits for the capture's answer
	brokerPatience  = 5 * time.Second // and for a broker that does not answer
)

// request is what all requests have.
type request struct {
	capture string
	yes     bool
	wait    bool // until the backfill has ended
}

func (r *request) flag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&r.capture, "capture", "", "name of the capture; may be left out if the configuration has one")
}

// backfillStartCommand asks for a backfill.
func (c *cli) backfillStartCommand() *cobra.Command {
	var r request
	var table, where, from, to, topic string
	var rate int
	cmd := &cobra.Command{
		Use:   "start --table SCHEMA.TABLE",
		Short: "Read the rows of a table into its topic, or into one of your own",
		Long: `Read the rows of a table: all of them, or those that --where, --from-key and --to-key
choose. Rows that change meanwhile are not written as they were before. Columns are left
out and masked as the configuration says; a table with a masked key cannot be read again.

A key is one value, or a JSON array with one value for each key column: '["de", 17]'.

--to-topic addresses the rows to a new topic, for one subscriber. As long as the backfill
runs the table's changes are written there, too, so that no old row wins.

What is wrong with the request shows when the capture looks at the table: a backfill that
fails by then is told here, with exit code 1. With --wait also one that fails later; SIGINT
ends the waiting, not the backfill.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			namespace, name, ok := strings.Cut(table, ".")
			if !ok || namespace == "" || name == "" {
				return usagef(cmd, "--table %q is not schema.table", table)
			}
			req := capture.Command{ID: newID(), Verb: capture.VerbStart, Namespace: namespace, Name: name, Where: where, ToTopic: topic, Rate: rate}
			var err error
			if req.FromKey, err = parseKey(from); err != nil {
				return usagef(cmd, "--from-key: %w", err)
			}
			if req.ToKey, err = parseKey(to); err != nil {
				return usagef(cmd, "--to-key: %w", err)
			}
			return c.request(cmd, &r, &req)
		},
	}
	r.flag(cmd)
	f := cmd.Flags()
	f.StringVar(&table, "table", "", "the table, as the database writes it (needed)")
	f.StringVar(&where, "where", "", "condition on the rows, in the database's language")
	f.StringVar(&from, "from-key", "", "only rows after this key")
	f.StringVar(&to, "to-key", "", "only rows up to this key")
	f.StringVar(&topic, "to-topic", "", "where the rows go, instead of the table's topic")
	f.IntVar(&rate, "rate", 0, "rows a second at most; 0: no limit")
	f.BoolVar(&r.wait, "wait", false, "until it has ended")
	return cmd
}

// backfillVerbCommand makes a command about one backfill.
func (c *cli) backfillVerbCommand(verb, short string) *cobra.Command {
	var r request
	cmd := &cobra.Command{
		Use:   verb + " ID",
		Short: short,
		Args:  args("an id"),
		RunE: func(cmd *cobra.Command, given []string) error {
			if verb == capture.VerbCancel {
				if err := c.confirm(cmd, r.yes, fmt.Sprintf("Cancel backfill %s? It cannot be resumed.", given[0])); err != nil {
					return err
				}
			}
			return c.request(cmd, &r, &capture.Command{ID: newID(), Verb: verb, Backfill: given[0]})
		},
	}
	r.flag(cmd)
	if verb == capture.VerbCancel {
		cmd.Flags().BoolVar(&r.yes, "yes", false, "do not ask")
	}
	return cmd
}

// confirm asks whether to go on; where nobody can be asked, --yes must have been given.
func (c *cli) confirm(cmd *cobra.Command, yes bool, question string) error {
	if yes {
		return nil
	}
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !terminal(in) {
		return &usageError{errors.New("this needs a word of yours, and there is no terminal to ask at"), "say --yes"}
	}
	fmt.Fprintf(c.err, "%s [y/N] ", printable(question))
	answer, _ := bufio.NewReader(in).ReadString('\n')
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return usagef(cmd, "nothing was done")
	}
	return nil
}

// newID returns a short id that sorts by time.
func newID() string {
	var b [3]byte
	_, _ = rand.Read(b[:]) // it never fails
	return time.Now().UTC().Format("20060102-150405-") + hex.EncodeToString(b[:])
}

// parseKey reads a key: one value, or a JSON array of them.
func parseKey(text string) ([]string, error) {
	if text == "" {
		return nil, nil
	}
	if !strings.HasPrefix(strings.TrimSpace(text), "[") {
		return []string{text}, nil
	}
	var values []any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&values); err != nil || len(values) == 0 {
		return nil, fmt.Errorf("%q is no JSON array of values", text)
	}
	key := make([]string, len(values))
	for i, v := range values {
		switch v := v.(type) {
		case string:
			key[i] = v
		case json.Number:
			key[i] = v.String()
		case bool:
			key[i] = fmt.Sprint(v)
		default:
			return nil, fmt.Errorf("value %d of %q is neither text nor number", i+1, text)
		}
	}
	return key, nil
}

// captureName is the capture that a command is about.
func captureName(cfg *config.Config, given string) (string, error) {
	if given != "" {
		return given, nil
	}
	if len(cfg.Captures) == 1 {
		return cfg.Captures[0].Name, nil
	}
	return "", &usageError{fmt.Errorf("the configuration has %d captures", len(cfg.Captures)), "name one: --capture NAME"}
}

// requestAnswer is the answer to a request.
type requestAnswer struct {
	Command  string            `json:"command"` // its id
	Carried  bool              `json:"carried"` // false: it waits for the capture
	Backfill *capture.Backfill `json:"backfill,omitempty"`
}

// request sends a command to a capture and waits for what comes of it.
func (c *cli) request(cmd *cobra.Command, r *request, req *capture.Command) error {
	return c.withClientFor(cmd, brokerPatience, func(ctx context.Context, client *stream.Client, cfg *config.Config) error {
		name, err := captureName(cfg, r.capture)
		if err != nil {
			return err
		}
		req.At, req.By = time.Now().UTC(), whoami()
		_, err = client.Topic(ctx, capture.CommandTopic(name)) // a producer would be more patient
		if err == nil {
			err = capture.Send(ctx, client, name, req)
		}
		if err != nil {
			if errors.Is(err, stream.ErrNoTopic) {
				return &usageError{fmt.Errorf("capture %q has never run: it has no topic %s", name, capture.CommandTopic(name)),
					"check the name; a capture makes its topics at its first start"}
			}
			return err
		}
		out, err := c.awaitOutcome(ctx, client, name, req.ID, r.wait)
		switch {
		case err != nil:
			return err
		case out == nil:
			return c.answer(cmd, fmt.Sprintf("requested as %s; capture %s does not run, or is busy: it is carried out when it does", req.ID, name),
				requestAnswer{Command: req.ID}, table{})
		case out.Error != "":
			return &usageError{errors.New(out.Error), out.Hint}
		}
		b, err := findBackfill(ctx, client, name, or(req.Backfill, req.ID))
		if err == nil && req.Verb == capture.VerbStart {
			b, err = c.settle(ctx, client, name, b, r.wait)
		}
		if err != nil {
			return err
		}
		return c.answer(cmd, fmt.Sprintf("backfill %s of %s is %s", b.ID, b.Table(), b.State), requestAnswer{req.ID, true, b}, table{})
	})
}

// awaitOutcome waits for the outcome of a command: a while, or until there is one; nil: there
// is none yet.
func (c *cli) awaitOutcome(ctx context.Context, client *stream.Client, name, id string, wait bool) (*capture.Outcome, error) {
	deadline, told := time.Now().Add(outcomePatience), false
	for {
		out, err := capture.OutcomeOf(ctx, client, name, id)
		late := time.Now().After(deadline)
		if out != nil || err != nil || late && !wait {
			return out, err
		}
		if late && !told {
			told = true
			fmt.Fprintf(c.err, "requested as %s; capture %s does not run, or is busy: waiting for it\n", id, name)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// settle waits a while until the capture has looked at a backfill's table, or until the
// backfill has ended. One that has failed is an error, and one that does not end because it
// was cancelled, if its end was to be waited for.
func (c *cli) settle(ctx context.Context, client *stream.Client, name string, b *capture.Backfill, wait bool) (*capture.Backfill, error) {
	deadline := time.Now().Add(outcomePatience)
	show := c.progress()
	for !b.State.Ended() && (wait || b.Ranges == 0 && time.Now().Before(deadline)) {
		if wait {
			show(b)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
		var err error
		if b, err = findBackfill(ctx, client, name, b.ID); err != nil {
			return nil, err
		}
	}
	if wait && terminal(c.err) {
		fmt.Fprintln(c.err)
	}
	switch {
	case b.State == capture.BackfillFailed:
		hint := "mend it, then: tailrace backfill resume " + b.ID
		if b.Hint != "" {
			hint = b.Hint + "; then: tailrace backfill resume " + b.ID
		}
		return nil, &hintedError{fmt.Errorf("backfill %s of %s failed: %s", b.ID, b.Table(), b.Error), hint}
	case wait && b.State == capture.BackfillCancelled:
		return nil, fmt.Errorf("backfill %s of %s was cancelled", b.ID, b.Table())
	}
	return b, nil
}

// whoami is who asks, for the record.
func whoami() string {
	host, _ := os.Hostname()
	u, err := user.Current()
	if err != nil {
		return host
	}
	return u.Username + "@" + host
}

// findBackfill reads where one backfill stands.
func findBackfill(ctx context.Context, client *stream.Client, name, id string) (*capture.Backfill, error) {
	list, err := readBackfills(ctx, client, name)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].ID == id {
			return &list[i], nil
		}
	}
	return nil, noBackfill(id)
}

func noBackfill(id string) error {
	return &usageError{fmt.Errorf("there is no backfill %q", id), "tailrace backfill list shows those that there are"}
}

// readBackfills reads a capture's backfills from its state topic.
func readBackfills(ctx context.Context, client *stream.Client, name string) ([]capture.Backfill, error) {
	list, err := capture.Backfills(ctx, client, name)
	if errors.Is(err, stream.ErrNoTopic) {
		return nil, &usageError{fmt.Errorf("capture %q has never run", name), "check the name, and the brokers"}
	}
	return list, err
}
