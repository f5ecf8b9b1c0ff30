package capture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tailrace/tailrace/stream"
)

// Verbs of a Command.
const (
	VerbStart  = "start"
	VerbPause  = "pause"
	VerbResume = "resume"
	VerbCancel = "cancel"
)

// Command asks a capture for something about a backfill. It travels over the capture's
// command topic, so that the process beside the database needs no port that others reach,
// and waits there if that process does not run.
type Command struct {
	ID   string    `json:"id"` // of the command; for start also of the backfill
	Verb string    `json:"verb"`
	At   time.Time `json:"at"`
	By   string    `json:"by,omitempty"` // who asks

	Backfill string `json:"backfill,omitempty"` // which, for all but start

	// for start: as in Backfill
	Namespace string   `json:"namespace,omitempty"`
	Name      string   `json:"name,omitempty"`
	Where     string   `json:"where,omitempty"`
	FromKey   []string `json:"from_key,omitempty"`
	ToKey     []string `json:"to_key,omitempty"`
	ToTopic   string   `json:"to_topic,omitempty"`
	Rate      int      `json:"rate,omitempty"`
}

// Outcome is what became of a command.
type Outcome struct {
	ID    string `json:"id"`              // of the command
	Error string `json:"error,omitempty"` // why it was refused; "": it was carried out
	Hint  string `json:"hint,omitempty"`
}

// keptOutcomes is how many outcomes the state keeps.
const keptOutcomes = 50

// CommandTopic returns the name of a capture's command topic: one partition, JSON.
func CommandTopic(capture string) string { return "__tailrace." + capture + ".commands" }

// commandRetention is how long a command waits for its capture.
const commandRetention = 30 * 24 * time.Hour

// makeCommandTopic makes the capture's command topic.
func makeCommandTopic(ctx context.Context, cfg *Config) error {
	_, err := cfg.Client.EnsureTopic(ctx, stream.TopicSpec{
		Name: CommandTopic(cfg.Name), Partitions: 1, Replication: cfg.Topics.Replication, Create: cfg.Topics.Create,
		Config: map[string]string{"cleanup.policy": "delete", "retention.ms": fmt.Sprint(commandRetention.Milliseconds())},
	})
	if err != nil {
		return fmt.Errorf("make the command topic: %w", err)
	}
	return nil
}

// Send writes a command to a capture's command topic. Its errors are the broker's; one that
// says that the topic does not exist means that the capture has never run.
func Send(ctx context.Context, client *stream.Client, capture string, c *Command) error {
	value, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("write a command: %w", err)
	}
	prod, err := client.NewProducer(ctx, stream.ProducerConfig{})
	if err != nil {
		return fmt.Errorf("write a command: %w", err)
	}
	var b stream.Batch
	if err := b.Append(c.At.UnixMilli(), []byte(c.ID), value, nil); err != nil {
		return fmt.Errorf("write a command: %w", err)
	}
	if err := b.Seal(stream.None, false); err != nil {
		return fmt.Errorf("write a command: %w", err)
	}
	if err := prod.Produce(ctx, []*stream.Outgoing{{Topic: CommandTopic(capture), Batch: &b}}); err != nil {
		return fmt.Errorf("write a command: %w", err)
	}
	return nil
}

// OutcomeOf says what the state topic says of a command; nil: the capture has not come to
// it yet.
func OutcomeOf(ctx context.Context, client *stream.Client, capture, command string) (*Outcome, error) {
	s, err := loadState(ctx, &Config{Name: capture, Client: client})
	if err != nil {
		return nil, err
	}
	for i := range s.control.Outcomes {
		if s.control.Outcomes[i].ID == command {
			return &s.control.Outcomes[i], nil
		}
	}
	return nil, nil
}

// Requests returns the commands that a capture has not come to yet, the oldest first. What is
// no command is left out: the capture refuses it.
func Requests(ctx context.Context, client *stream.Client, capture string) ([]Command, error) {
	s, err := loadState(ctx, &Config{Name: capture, Client: client})
	if err != nil {
		return nil, err
	}
	topic := CommandTopic(capture)
	at, err := client.Offsets(ctx, topic, 0)
	if errors.Is(err, stream.ErrNoTopic) { // an older version wrote the state
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read commands: %w", err)
	}
	var list []Command
	_, err = client.ReadToEnd(ctx, topic, 0, min(max(s.control.Next, at.Start), at.End), func(r *stream.Record) error {
		var c Command
		if json.Unmarshal(r.Value, &c) == nil {
			list = append(list, c)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read commands: %w", err)
	}
	return list, nil
}

// listenPause is how long the command topic is left alone after it could not be read.
const listenPause = time.Second

// listen reads commands from an offset on and passes them to the engine, until ctx ends.
func (e *engine) listen(ctx context.Context, from int64) {
	topic := CommandTopic(e.p.cfg.Name)
	for ctx.Err() == nil {
		err := e.follow(ctx, topic, &from)
		if errors.Is(err, stream.ErrOffsetOutOfRange) { // old commands were given up
			var at stream.Offsets
			if at, err = e.p.cfg.Client.Offsets(ctx, topic, 0); err == nil {
				from = min(max(from, at.Start), at.End)
			}
		}
		if ctx.Err() == nil && err != nil {
			e.log.Warn("could not read commands, will try again", "topic", topic, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(listenPause):
		}
	}
}

// follow reads commands until that fails.
func (e *engine) follow(ctx context.Context, topic string, from *int64) error {
	r := e.p.cfg.Client.NewReader(topic, 0, *from, stream.FetchOptions{MaxBytes: 1 << 20})
	for {
		err := r.Read(ctx, func(rec *stream.Record) error {
			var c Command
			next := rec.Offset + 1
			bad := json.Unmarshal(rec.Value, &c)
			e.inbox.post(func(ctx context.Context) error { return e.command(ctx, &c, bad, next) })
			*from = next
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// command carries out a command, or refuses it, and makes that durable.
func (e *engine) command(ctx context.Context, c *Command, bad error, next int64) error {
	if bad == nil {
		bad = e.carryOut(ctx, c)
	}
	out := Outcome{ID: c.ID}
	if bad != nil {
		if ctx.Err() != nil {
			return bad
		}
		out.Error, out.Hint = bad.Error(), HintOf(bad)
		e.log.Warn("refused a command", "command", c.ID, "verb", c.Verb, "by", c.By, "error", bad)
	} else {
		e.log.Info("carried out a command", "command", c.ID, "verb", c.Verb, "by", c.By)
	}
	e.control.Next = next
	e.control.Outcomes = append(e.control.Outcomes, out)
	if n := len(e.control.Outcomes); n > keptOutcomes {
		e.control.Outcomes = slices.Clone(e.control.Outcomes[n-keptOutcomes:])
	}
	return e.p.save(ctx, append(e.changed(), stateRecord{key: controlKey, value: mustJSON(e.control)}))
}

// carryOut changes backfills as a command says. What it changes is saved by the caller.
func (e *engine) carryOut(ctx context.Context, c *Command) error {
	if c.Verb == VerbStart {
		return e.request(c)
	}
	b := e.known[c.Backfill]
	if b == nil {
		return stopf("tailrace backfill list shows those that there are", "there is no backfill %q", c.Backfill)
	}
	switch c.Verb {
	case VerbPause:
		return e.pause(b)
	case VerbResume:
		return e.resume(b)
	case VerbCancel:
		return e.cancel(ctx, b)
	}
	return stopf("this capture is of an older version", "unknown command %q", c.Verb)
}
