package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/app"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/show"
	"github.com/tailrace/tailrace/sinks"
	"github.com/tailrace/tailrace/stream"
)

// dlqCommand holds the commands about dead letters.
func (c *cli) dlqCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "dlq",
		Short: "See the changes that a sink's target refuses; retry or drop them",
		Long: `See the changes that a sink's target refuses, and what waits behind them; have them
applied, or dropped. A sink with dead_letters: park keeps them in the topic
__tailrace.<sink>.dlq. Requests go over that topic to the sink that owns the letters, which
does them in order between its other work; one that does not run does them when it does.`,
	})
	cmd.AddCommand(c.dlqListCommand(), c.dlqShowCommand(), c.dlqRetryCommand(), c.dlqDropCommand())
	return cmd
}

// letters is what a command about dead letters works with.
type letters struct {
	sink   string
	prefix string // of the topics that the sink reads; "" if it is not known
	client *stream.Client
	keys   *show.Reader
	book   *sinks.LetterBook
}

// withLetters calls fn with the dead letters of a sink, as they are now.
func (c *cli) withLetters(cmd *cobra.Command, sink string, fn func(context.Context, *letters) error) error {
	return c.withClient(cmd, func(ctx context.Context, client *stream.Client, cfg *config.Config) error {
		l := &letters{client: client}
		var err error
		if l.sink, l.prefix, err = sinkNamed(cfg, sink); err != nil {
			return err
		}
		reg, err := app.NewRegistry(cfg.Registry)
		if err != nil {
			return err
		}
		defer reg.Close()
		l.keys, l.book = show.NewReader(patient{reg}), sinks.NewLetterBook(l.sink)
		if err := l.read(ctx); err != nil {
			return err
		}
		return fn(ctx, l)
	})
}

// read reads on to the end of the letters. A sink that has none has no topic.
func (l *letters) read(ctx context.Context) error {
	err := l.book.Read(ctx, l.client)
	if errors.Is(err, stream.ErrNoTopic) {
		return &usageError{fmt.Errorf("sink %q has no dead letters: there is no topic %s", l.sink, l.book.Topic()),
			"check the name, and that the sink has dead_letters: park and has run"}
	}
	return err
}

// sinkNamed is the sink that a command is about, and the prefix of its topics.
func sinkNamed(cfg *config.Config, given string) (name, prefix string, err error) {
	for i := range cfg.Sinks {
		if s := &cfg.Sinks[i]; s.Name == given || given == "" && len(cfg.Sinks) == 1 {
			return s.Name, cfg.Prefix(s.From), nil
		}
	}
	if given == "" {
		return "", "", &usageError{fmt.Errorf("the configuration has %d sinks", len(cfg.Sinks)), "name one: --sink NAME"}
	}
	return given, "", nil // of another process
}

// parkedKey is a key with what is parked of it.
type parkedKey struct {
	Position string       `json:"position"` // of the first letter: topic/partition@offset
	Topic    string       `json:"topic"`
	Key      any          `json:"key"` // decoded; null: the whole table waits
	Letters  int          `json:"letters"`
	Waiting  int          `json:"waiting"` // of them behind the first
	Attempts int          `json:"attempts"`
	Since    time.Time    `json:"since"`
	Cause    *sinks.Cause `json:"cause,omitempty"`

	id sinks.ParkedK
}

// keysParked returns the keys with parked letters, in the order of the changes; decoded if
// they are to be, which needs the registry.
func (l *letters) keysParked(ctx context.Context, decoded bool) ([]parkedKey, error) {
	all, err := l.book.Parked()
	if err != nil {
		return nil, err
	}
	lanes := make(map[string]int)
	out := []parkedKey{}
	for i := range all {
		one := &all[i]
		lane := fmt.Sprintf("%s/%d/%x", one.Topic, one.Partition, one.Lane)
		if at, ok := lanes[lane]; ok {
			out[at].Letters++
			out[at].Waiting++
			continue
		}
		lanes[lane] = len(out)
		k := parkedKey{
			Position: positionOf(&one.Letter), Topic: one.Topic, Letters: 1, Attempts: one.Attempts, Since: one.Time, Cause: one.Cause,
			id: sinks.ParkedK{Topic: one.Topic, Partition: one.Partition, Key: one.Lane, First: one.Offset},
		}
		if len(one.Lane) > 0 && decoded {
			if k.Key, err = l.key(ctx, one); err != nil {
				return nil, err
			}
		}
		out = append(out, k)
	}
	return out, nil
}

// key decodes a letter's key; what cannot be decoded is shown as hexadecimal digits.
func (l *letters) key(ctx context.Context, one *sinks.ParkedLetter) (any, error) {
	rec, err := l.keys.Record(ctx, one.Topic, one.Partition, &stream.Record{Offset: one.Offset, Key: one.Key})
	switch {
	case err != nil:
		return nil, err
	case rec.Key == nil:
		return fmt.Sprintf("%x", one.Key), nil
	}
	return rec.Key, nil
}

// positionOf writes the place of a letter's change: topic/partition@offset.
func positionOf(l *sinks.Letter) string {
	return fmt.Sprintf("%s/%d@%d", l.Topic, l.Partition, l.Offset)
}

// parsePosition reads what positionOf writes.
func parsePosition(text string) (p sinks.Partition, offset int64, err error) {
	topic, rest, ok := strings.Cut(text, "/")
	number, at, ok2 := strings.Cut(rest, "@")
	n, err1 := strconv.ParseInt(number, 10, 32)
	offset, err2 := strconv.ParseInt(at, 10, 64)
	if !ok || !ok2 || err1 != nil || err2 != nil || topic == "" || n < 0 || offset < 0 {
		return p, 0, fmt.Errorf("%q is no position: it must look like shop.public.orders/0@17", text)
	}
	return sinks.Partition{Topic: topic, Number: int32(n)}, offset, nil
}

// letterCount is what is parked of one topic for one cause.
type letterCount struct {
	Topic   string    `json:"topic"`
	Cause   string    `json:"cause"` // its code, as an SQLSTATE; else its text
	Keys    int       `json:"keys"`
	Letters int       `json:"letters"`
	Waiting int       `json:"waiting"`
	Oldest  time.Time `json:"oldest"`
}

// letterList is the result of list.
type letterList struct {
	Sink    string        `json:"sink"`
	Topic   string        `json:"topic"`
	Letters int           `json:"letters"`
	Oldest  *time.Time    `json:"oldest,omitempty"`
	Counts  []letterCount `json:"counts"`
	Keys    []parkedKey   `json:"keys"`
}

// dlqListCommand counts what is parked.
func (c *cli) dlqListCommand() *cobra.Command {
	var sink string
	var keys, watch bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Count what is parked, by topic and cause; with --keys list the keys that wait",
		Args:  args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every < 100*time.Millisecond {
				return usagef(cmd, "--every %s is shorter than 100ms", every)
			}
			return c.withLetters(cmd, sink, func(ctx context.Context, l *letters) error {
				for {
					if err := c.listLetters(ctx, cmd, l, keys); err != nil || !watch {
						return err
					}
					select {
					case <-ctx.Done():
						return ctx.Err()
					case <-time.After(every):
					}
					if err := l.read(ctx); err != nil {
						return err
					}
				}
			})
		},
	}
	sinkFlag(cmd, &sink)
	cmd.Flags().BoolVar(&keys, "keys", false, "each key that waits, instead of counts")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "again and again, until SIGINT")
	cmd.Flags().DurationVar(&every, "every", 2*time.Second, "time between two looks of --watch")
	return cmd
}

func sinkFlag(cmd *cobra.Command, sink *string) {
	cmd.Flags().StringVar(sink, "sink", "", "name of the sink; may be left out if the configuration has one")
}

// listLetters writes what is parked.
func (c *cli) listLetters(ctx context.Context, cmd *cobra.Command, l *letters, keys bool) error {
	list := letterList{Sink: l.sink, Topic: l.book.Topic(), Counts: []letterCount{}}
	var err error
	if list.Keys, err = l.keysParked(ctx, keys || c.format == "json"); err != nil {
		return err
	}
	list.count()
	t := table{head: []string{"TOPIC", "CAUSE", "KEYS", "LETTERS", "WAITING", "OLDEST"}}
	if keys {
		t.head = []string{"POSITION", "KEY", "LETTERS", "ATTEMPTS", "SINCE", "CAUSE"}
		for _, k := range list.Keys {
			t.rows = append(t.rows, []string{k.Position, keyText(k.Key), strconv.Itoa(k.Letters), strconv.Itoa(k.Attempts), k.Since.Format(time.RFC3339), causeText(k.Cause)})
		}
	} else {
		for _, n := range list.Counts {
			t.rows = append(t.rows, []string{n.Topic, n.Cause, strconv.Itoa(n.Keys), strconv.Itoa(n.Letters), strconv.Itoa(n.Waiting), n.Oldest.Format(time.RFC3339)})
		}
	}
	summary := fmt.Sprintf("%s of %s parked", count(list.Letters, "dead letter"), count(len(list.Keys), "key"))
	if list.Letters == 0 {
		summary, t = "no dead letters are parked", table{}
	}
	return c.answer(cmd, summary, list, t)
}

// count sums keys up by topic and cause.
func (list *letterList) count() {
	type group struct{ topic, cause string }
	sums := make(map[group]*letterCount)
	for i := range list.Keys {
		k := &list.Keys[i]
		cause := "-"
		if k.Cause != nil {
			cause = or(k.Cause.Code, k.Cause.Text)
		}
		g := group{k.Topic, cause}
		if sums[g] == nil {
			sums[g] = &letterCount{Topic: k.Topic, Cause: cause, Oldest: k.Since}
		}
		n := sums[g]
		n.Keys, n.Letters, n.Waiting = n.Keys+1, n.Letters+k.Letters, n.Waiting+k.Waiting
		if k.Since.Before(n.Oldest) {
			n.Oldest = k.Since
		}
		list.Letters += k.Letters
		if list.Oldest == nil || k.Since.Before(*list.Oldest) {
			list.Oldest = &k.Since
		}
	}
	for _, n := range sums {
		list.Counts = append(list.Counts, *n)
	}
	slices.SortFunc(list.Counts, func(a, b letterCount) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Cause, b.Cause))
	})
}

// keyText writes a decoded key.
func keyText(key any) string {
	if key == nil {
		return "(whole table)"
	}
	return fmt.Sprintf("%s", key)
}

// causeText writes a cause in a line.
func causeText(cause *sinks.Cause) string {
	if cause == nil {
		return "-"
	}
	return strings.ReplaceAll(cause.Text, "\n", " ")
}

// shownLetter is the result of show.
type shownLetter struct {
	Letter  *sinks.Letter  `json:"letter"`
	Record  *show.Record   `json:"record"`
	Outcome *sinks.Outcome `json:"outcome,omitempty"` // none: it is parked
}

// dlqShowCommand shows one letter.
func (c *cli) dlqShowCommand() *cobra.Command {
	var sink string
	cmd := &cobra.Command{
		Use:   "show POSITION",
		Short: "Show one letter, decoded, with its cause, and what became of it",
		Long: `Show one letter, decoded, with its cause. A position is topic/partition@offset, as
shop.public.orders/0@17 in dlq list --keys. Letters that were applied or dropped can be
shown too, with what became of them and why.`,
		Args: args("a position"),
		RunE: func(cmd *cobra.Command, given []string) error {
			p, offset, err := parsePosition(given[0])
			if err != nil {
				return usagef(cmd, "%w", err)
			}
			return c.withLetters(cmd, sink, func(ctx context.Context, l *letters) error {
				letter, outcome := l.book.Find(p, offset)
				if letter == nil {
					return &usageError{fmt.Errorf("sink %q has no dead letter of %s", l.sink, given[0]), fmt.Sprintf("see `tailrace dlq list --keys --sink %s`", l.sink)}
				}
				rec, err := l.record(ctx, letter)
				if err != nil {
					return err
				}
				return c.showLetter(cmd, shownLetter{&letter.Letter, rec, outcome})
			})
		},
	}
	sinkFlag(cmd, &sink)
	return cmd
}

// record reads a letter's record.
func (l *letters) record(ctx context.Context, letter *sinks.ParkedLetter) (out *show.Record, err error) {
	r := l.client.NewReader(l.book.Topic(), 0, letter.At, stream.FetchOptions{})
	for out == nil {
		if err := r.Read(ctx, func(rec *stream.Record) (err error) {
			if out != nil || rec.Offset != letter.At {
				return nil
			}
			out, err = l.keys.Record(ctx, letter.Topic, letter.Partition, rec)
			return err
		}); err != nil {
			return nil, err
		}
	}
	out.Offset = letter.Offset
	delete(out.Headers, sinks.DeadLetterHeader)
	return out, nil
}

// showLetter writes a letter, for a person as lines.
func (c *cli) showLetter(cmd *cobra.Command, s shownLetter) error {
	l := s.Letter
	state := l.State
	lines := [][2]string{
		{"position", positionOf(l)},
		{"log", fmt.Sprintf("epoch %d, order %d, row %d; number %d of the partition", l.Epoch, l.Order, l.Row, l.N)},
		{"since", l.Time.Format(time.RFC3339)}, {"attempts", strconv.Itoa(l.Attempts)},
	}
	if l.Cause != nil {
		lines = append(lines, [2]string{"cause", or(l.Cause.Code, "-") + "  " + causeText(l.Cause)})
		if l.Cause.Hint != "" {
			lines = append(lines, [2]string{"hint", l.Cause.Hint})
		}
	}
	if o := s.Outcome; o != nil {
		state = "applied"
		if slices.Contains(o.Dropped, l.Offset) {
			state = "dropped: " + or(o.Reason, "no reason was given")
		}
		lines = append(lines, [2]string{"ended", o.Time.Format(time.RFC3339)})
	}
	op, value := summary(s.Record)
	lines = append([][2]string{{"state", state}}, lines...)
	lines = append(lines, [2]string{"op", op}, [2]string{"key", string(s.Record.Key)}, [2]string{"row", value})
	if s.Record.Error != "" {
		lines = append(lines, [2]string{"error", s.Record.Error})
	}
	for _, name := range slices.Sorted(maps.Keys(s.Record.Headers)) {
		lines = append(lines, [2]string{"header " + name, s.Record.Headers[name]})
	}
	var text strings.Builder
	for _, one := range lines {
		fmt.Fprintf(&text, "%-9s %s\n", one[0], printable(one[1]))
	}
	return c.answer(cmd, strings.TrimSuffix(text.String(), "\n"), s, table{})
}
