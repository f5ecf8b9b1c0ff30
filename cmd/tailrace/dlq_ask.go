package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tailrace/tailrace/sinks"
)

// chosen says which letters a request is about.
type chosen struct {
	sink, table, key, position string
	all                        bool
	wait                       time.Duration
}

func (o *chosen) flags(cmd *cobra.Command) {
	sinkFlag(cmd, &o.sink)
	f := cmd.Flags()
	f.StringVar(&o.table, "table", "", "only letters of this table, schema.table")
	f.StringVar(&o.key, "key", "", "only letters of this key; with several columns a JSON array; needs --table")
	f.StringVar(&o.position, "position", "", "only the key of the letter at this position, as shop.public.orders/0@17")
	f.DurationVar(&o.wait, "wait", outcomePatience, "how long to wait for the sink's answer")
}

// check says what is wrong with the flags.
func (o *chosen) check(cmd *cobra.Command) error {
	_, _, err := parsePosition(o.position)
	switch {
	case o.position != "" && err != nil:
		return usagef(cmd, "--position: %w", err)
	case o.position != "" && (o.table != "" || o.key != "") || o.all && (o.table != "" || o.position != ""):
		return usagef(cmd, "give one of --all, --table and --position")
	case o.key != "" && o.table == "":
		return usagef(cmd, "--key needs --table")
	}
	return nil
}

// dlqRetryCommand asks for letters to be applied.
func (c *cli) dlqRetryCommand() *cobra.Command {
	var o chosen
	cmd := &cobra.Command{
		Use:   "retry",
		Short: "Have letters applied, and what waits behind them, in order",
		Long: `Have letters applied, and what waits behind them, in order: all of them, or those that the
flags choose. The sink does it, between its other work. Letters that the target refuses
again stay where they are, with all that waits behind them; then the exit code is 1. If the
sink does not answer in time the request stands, and it does it when it runs.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			return c.withLetters(cmd, o.sink, func(ctx context.Context, l *letters) error {
				keys, err := l.choose(ctx, &o)
				if err != nil {
					return err
				}
				return c.askLetters(ctx, cmd, l, &o, keys, &sinks.Request{Action: sinks.ActionRetry})
			})
		},
	}
	o.flags(cmd)
	return cmd
}

// dlqDropCommand asks for letters to be dropped.
func (c *cli) dlqDropCommand() *cobra.Command {
	var o chosen
	var waiting, yes bool
	var reason string
	cmd := &cobra.Command{
		Use:   "drop --position POSITION --reason TEXT",
		Short: "Give up letters: they are never applied",
		Long: `Give up the refused letters that the flags choose. What waits behind them is applied, in
order; with --with-waiting it is given up too, and the target's row stays as it is until the
next change of its key. The letters stay in the topic, with the reason, the name of who
asked and the time: dlq show shows them.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			if !o.all && o.table == "" && o.position == "" {
				return usagef(cmd, "say what to drop: --position, --table, with it --key, or --all")
			}
			return c.withLetters(cmd, o.sink, func(ctx context.Context, l *letters) error {
				keys, err := l.choose(ctx, &o)
				switch {
				case err != nil:
					return err
				case len(keys) == 0:
					return c.askLetters(ctx, cmd, l, &o, nil, nil)
				}
				if err := firstOnly(&o, keys, waiting); err != nil {
					return err
				}
				if err := c.confirm(cmd, yes, dropQuestion(keys, waiting)); err != nil {
					return err
				}
				return c.askLetters(ctx, cmd, l, &o, keys, &sinks.Request{Action: sinks.ActionDrop, WithWaiting: waiting, Reason: reason})
			})
		},
	}
	o.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.all, "all", false, "all that is parked")
	f.BoolVar(&waiting, "with-waiting", false, "what waits behind, too")
	f.StringVar(&reason, "reason", "", "why, for the record")
	f.BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// firstOnly refuses to drop a letter out of the middle: what it waits behind goes first.
func firstOnly(o *chosen, keys []parkedKey, waiting bool) error {
	if o.position == "" || waiting || keys[0].Position == o.position {
		return nil
	}
	return &usageError{fmt.Errorf("the letter at %s only waits, behind %s", o.position, keys[0].Position), "drop that one, or all of the key: --with-waiting"}
}

// dropQuestion says what a drop does.
func dropQuestion(keys []parkedKey, waiting bool) string {
	letters := 0
	for _, k := range keys {
		letters += k.Letters
	}
	if waiting {
		return fmt.Sprintf("Give up %s of %s? They are never applied.", count(letters, "letter"), count(len(keys), "key"))
	}
	return fmt.Sprintf("Give up the refused letter of %s, and apply what waits behind (%d)? It is never applied.", count(len(keys), "key"), letters-len(keys))
}

// choose returns the keys that the flags name. If they name what is not parked, that is an
// error.
func (l *letters) choose(ctx context.Context, o *chosen) ([]parkedKey, error) {
	keys, err := l.keysParked(ctx, o.key != "")
	if err != nil {
		return nil, err
	}
	var wrong error
	left := slices.DeleteFunc(keys, func(k parkedKey) bool {
		ok, err := l.means(o, &k)
		wrong = errors.Join(wrong, err)
		return !ok
	})
	if wrong != nil {
		return nil, wrong
	}
	if len(left) == 0 && (o.table != "" || o.position != "") {
		return nil, &usageError{errors.New("nothing that is parked is meant by the flags"), fmt.Sprintf("see `tailrace dlq list --keys --sink %s`", l.sink)}
	}
	return left, nil
}

// means says whether the flags mean a key.
func (l *letters) means(o *chosen, k *parkedKey) (bool, error) {
	switch {
	case o.position != "":
		return l.has(o.position, k)
	case o.table != "" && k.Topic != o.table && k.Topic != l.prefix+"."+o.table && (l.prefix != "" || !strings.HasSuffix(k.Topic, "."+o.table)):
		return false, nil
	case o.key == "":
		return true, nil
	}
	want, err := parseKey(o.key)
	if err != nil {
		return false, &usageError{fmt.Errorf("--key: %w", err), "write one value, or a JSON array with one for each column"}
	}
	raw, ok := k.Key.(json.RawMessage)
	return ok && slices.Equal(keyValues(raw), want), nil
}

// has says whether the letter at a position is one of a key.
func (l *letters) has(position string, k *parkedKey) (bool, error) {
	if k.Position == position {
		return true, nil
	}
	p, offset, err := parsePosition(position)
	if err != nil || p.Topic != k.id.Topic || p.Number != k.id.Partition {
		return false, err
	}
	letter, outcome := l.book.Find(p, offset)
	return letter != nil && outcome == nil && bytes.Equal(letter.Lane, k.id.Key), nil
}

// keyValues returns the values of a decoded key in its order, as text.
func keyValues(key json.RawMessage) []string {
	d := json.NewDecoder(bytes.NewReader(key))
	d.UseNumber()
	if _, err := d.Token(); err != nil {
		return nil
	}
	var out []string
	for d.More() {
		if _, err := d.Token(); err != nil { // the name
			return nil
		}
		var v any
		if err := d.Decode(&v); err != nil {
			return nil
		}
		out = append(out, fmt.Sprint(v))
	}
	return out
}

// lettersAsked is the result of retry and drop.
type lettersAsked struct {
	Sink    string `json:"sink"`
	Request string `json:"request,omitempty"` // its id
	Keys    int    `json:"keys"`              // that are meant
	State   string `json:"state"`             // done; waiting: for the sink; nothing: is parked
	Applied int    `json:"applied"`
	Dropped int    `json:"dropped"`
	Again   int    `json:"refused_again"` // keys that stay
}

// askLetters makes a request and waits for what comes of it.
func (c *cli) askLetters(ctx context.Context, cmd *cobra.Command, l *letters, o *chosen, keys []parkedKey, r *sinks.Request) error {
	out := lettersAsked{Sink: l.sink, Keys: len(keys), State: "nothing"}
	if len(keys) == 0 {
		return c.answer(cmd, "no dead letters are parked", out, table{})
	}
	r.ID, r.By, r.Time = newID(), whoami(), time.Now().UTC()
	narrow(r, o, keys)
	if _, err := sinks.AskDeadLetters(ctx, l.client, l.sink, r); err != nil {
		return err
	}
	out.Request, out.State = r.ID, "waiting"
	if err := l.await(ctx, o.wait, keys, &out); err != nil {
		return err
	}
	done := fmt.Sprintf("%s applied, %d dropped", count(out.Applied, "letter"), out.Dropped)
	switch {
	case out.State == "waiting":
		return c.answer(cmd, fmt.Sprintf("requested as %s; sink %s does not run, or is busy: it does it when it runs (so far: %s)", r.ID, l.sink, done), out, table{})
	case out.Again == 0:
		return c.answer(cmd, done, out, table{})
	}
	failed := &hintedError{fmt.Errorf("%s; the target refuses %s again", done, count(out.Again, "key")), fmt.Sprintf("see why with `tailrace dlq list --keys --sink %s`", l.sink)}
	if c.format == "json" {
		return c.refuse(cmd, out, failed)
	}
	return failed
}

// narrow has a request mean what the flags mean.
func narrow(r *sinks.Request, o *chosen, keys []parkedKey) {
	for _, k := range keys {
		switch {
		case o.position != "" || o.key != "":
			r.Keys = append(r.Keys, k.id)
		case o.table != "" && !slices.Contains(r.Topics, k.Topic):
			r.Topics = append(r.Topics, k.Topic)
		}
	}
}

// await waits until the sink has done a request wherever keys are meant.
func (l *letters) await(ctx context.Context, patience time.Duration, keys []parkedKey, out *lettersAsked) error {
	open := make(map[sinks.Partition]bool)
	for _, k := range keys {
		open[sinks.Partition{Topic: k.id.Topic, Number: k.id.Partition}] = true
	}
	for deadline := time.Now().Add(patience); ; {
		if err := l.read(ctx); err != nil {
			return err
		}
		a := l.book.Answer(out.Request)
		out.Applied, out.Dropped, out.Again = a.Applied, a.Dropped, a.Again
		for _, p := range a.Done {
			delete(open, p)
		}
		if len(open) == 0 {
			out.State = "done"
			return nil
		}
		if time.Now().After(deadline) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
