package sinks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tailrace/tailrace/stream"
)

// Policy is what becomes of a change that the target refuses, in mode Keys.
type Policy string

// The policies.
const (
	Stop Policy = "stop" // the sink stops
	Park Policy = "park" // it becomes a dead letter, and its key's later changes wait behind it
)

// DefaultMaxDeadLetters is how many letters may be parked unless the configuration says.
const DefaultMaxDeadLetters = 10_000

// letters is the dead letters of the partitions that a run owns.
type letters struct {
	cfg    *Config
	out    deadWriter
	parts  map[Partition]*parking
	told   map[Partition]int64 // the heads that readers were told
	drafts []draft
	total  int // letters that are parked
	next   int64
	inbox  inbox
	asked  []asked // requests that are to be done
}

// draft is a letter that is not written yet.
type draft struct {
	change *Change
	letter Letter
	lane   *lane
	index  int
}

// letterTopic is how the topic of dead letters is made. Nothing in it is ever removed by
// the broker: who removes letters that are parked stops the sink.
func letterTopic(sink string) stream.TopicSpec {
	return stream.TopicSpec{Name: DeadLettersTopic(sink), Partitions: 1, Create: true, Config: map[string]string{
		"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1", "max.message.bytes": "67108864",
	}}
}

// openLetters makes sure of the topic. A sink that parks nothing has none, unless it did
// once: what is parked stays parked.
func openLetters(ctx context.Context, cfg *Config) (*letters, error) {
	topic := DeadLettersTopic(cfg.Name)
	info, err := cfg.Source.Client.Topic(ctx, topic)
	if errors.Is(err, stream.ErrNoTopic) {
		if cfg.DeadLetters != Park {
			return nil, nil
		}
		info, err = cfg.Source.Client.EnsureTopic(ctx, letterTopic(cfg.Name))
	}
	if err != nil {
		return nil, fmt.Errorf("open dead letters: %w", err)
	}
	if info.Partitions != 1 {
		return nil, stopf("it must have one: delete it with Kafka's tools if nothing is parked", "topic %s has %d partitions", topic, info.Partitions)
	}
	producer, err := cfg.Source.Client.NewProducer(ctx, stream.ProducerConfig{})
	if err != nil {
		return nil, fmt.Errorf("open dead letters: %w", err)
	}
	return &letters{
		cfg: cfg, out: deadWriter{topic: topic, producer: producer},
		parts: make(map[Partition]*parking), told: make(map[Partition]int64),
	}, nil
}

// load reads what is parked of the partitions, whose heads the target has told.
func (d *letters) load(ctx context.Context, heads map[Partition]Position) error {
	at, err := d.cfg.Source.Client.Offsets(ctx, d.out.topic, 0)
	if err != nil {
		return fmt.Errorf("read dead letters: %w", err)
	}
	from := at.LastStable
	for p, h := range heads {
		if h.N == 0 && h.Offset > at.LastStable {
			heads[p] = Position{} // the topic was made anew while nothing was parked
		} else if h.N > 0 {
			from = min(from, int64(h.Pos))
		}
	}
	if from < at.Start {
		return lostLetters(d.out.topic, fmt.Errorf("it begins at offset %d, the oldest that is parked is %d", at.Start, from))
	}
	chains := make(map[Partition]chain)
	for p := range heads {
		chains[p] = make(chain)
	}
	if d.next, err = d.cfg.Source.Client.ReadToEnd(ctx, d.out.topic, 0, from, func(r *stream.Record) error { return d.note(chains, r) }); err != nil {
		return fmt.Errorf("read dead letters: %w", err)
	}
	for p, h := range heads {
		s := newParking()
		if s.head = h.Offset - 1; h.N > 0 {
			if s, err = chains[p].parking(s.head, int64(h.Pos)); err == nil && s.count != int(h.N) {
				err = fmt.Errorf("%d letters of %s/%d are there, %d are parked", s.count, p.Topic, p.Number, h.N)
			}
			if err != nil {
				return lostLetters(d.out.topic, err)
			}
		}
		d.parts[p] = s
		d.total += s.count
		if err := d.tell(ctx, p); err != nil {
			return err
		}
	}
	d.gauge()
	return nil
}

// note takes in a record of the topic.
func (d *letters) note(chains map[Partition]chain, r *stream.Record) error {
	rec, err := ParseDeadRecord(r)
	if err != nil {
		return err
	}
	p, ok := rec.partition()
	switch {
	case !ok:
		d.inbox.put(asked{rec.Request, r.Offset})
	case rec.Head != nil:
		d.told[p] = rec.Head.Head
	case chains[p] != nil:
		chains[p][r.Offset] = &chained{*rec, bytes.Clone(r.Key), len(r.Key) + len(r.Value)}
	}
	return nil
}

func lostLetters(topic string, err error) error {
	return anew("the topic was deleted, or its records were removed: nobody can tell any more which keys wait",
		"dead letters are gone from topic %s: %w", topic, err)
}

// wait makes a letter of a change that waits in a lane, unless it is one already.
func (d *letters) wait(p Partition, name string, c *Change) error {
	s := d.parts[p]
	if s.has(name, c.Offset) {
		return nil
	}
	return d.draft(s, name, c, nil)
}

// refuse makes a letter of a change that the target does not take.
func (d *letters) refuse(p Partition, c *Change, why *Cause) error {
	s := d.parts[p]
	if _, waits := s.laneOf(c); waits {
		return nil
	}
	name := wholeLane
	if c.Key != nil {
		name = string(keyBody(c))
	}
	return d.draft(s, name, c, why)
}

func (d *letters) draft(s *parking, name string, c *Change, why *Cause) error {
	if d.total >= d.cfg.MaxDeadLetters {
		return &stop{code: CodeRuntime, ways: []Way{{Flag: WayLetters}},
			hint: "mend the target and ask for `tailrace dlq retry`, or drop them; then start the sink again, which does that first. Or raise max_dead_letters",
			err:  fmt.Errorf("%d dead letters are parked, as many as may be; the change at offset %d of %s/%d would be one more", d.total, c.Offset, c.Partition.Topic, c.Partition.Number)}
	}
	l := Letter{
		Sink: d.cfg.Name, State: LetterWaiting, Whole: name == wholeLane, Topic: c.Partition.Topic, Partition: c.Partition.Number, Offset: c.Offset,
		Epoch: c.Mark.Epoch, File: c.Mark.File, Order: c.Mark.Pos, Row: c.Mark.Row, N: c.Mark.N, Time: time.Now().UTC(), Cause: why,
	}
	if why != nil {
		l.State, l.Attempts = LetterRefused, 1
	}
	s.add(name, parked{at: -1, offset: c.Offset, refused: why != nil, attempts: l.Attempts, size: len(c.Key) + len(c.Value), time: l.Time})
	d.total++
	in := s.lanes[name]
	d.drafts = append(d.drafts, draft{c, l, in, len(*in) - 1})
	return nil
}

// letterBatch is from how many bytes on a record batch of letters is sent.
const letterBatch = 1 << 20

// flush writes the drafts, which are of one partition, at the end of its chain.
func (d *letters) flush(ctx context.Context, p Partition) error {
	s := d.parts[p]
	for from := 0; from < len(d.drafts); {
		to := from
		for ; to < len(d.drafts) && d.out.batch.Size() < letterBatch; to++ {
			one := &d.drafts[to]
			if to == from {
				one.letter.Prev = &s.head
			}
			h, err := (&DeadRecord{Letter: &one.letter}).header()
			if err != nil {
				return err
			}
			if err := d.out.batch.Append(one.change.Timestamp, one.change.Key, one.change.Value, one.change.AppendHeaders([]stream.RecordHeader{h})); err != nil {
				return err
			}
		}
		first, err := d.out.flush(ctx)
		if err != nil {
			return err
		}
		for i := from; i < to; i++ {
			one := &d.drafts[i]
			(*one.lane)[one.index].at = first + int64(i-from)
			d.cfg.Monitor.letter(one.letter.State, 1)
			d.warn(one)
		}
		s.head = first + int64(to-from) - 1
		from = to
	}
	if len(d.drafts) > 0 {
		Failpoint("dlq-written")
	}
	clear(d.drafts)
	d.drafts = d.drafts[:0]
	return nil
}

// warn tells the log of a refused change.
func (d *letters) warn(one *draft) {
	if l := &one.letter; l.Cause != nil {
		d.cfg.Log.Warn("the target refuses a change: its key waits in the dead letters", "sink", d.cfg.Name,
			"topic", l.Topic, "partition", l.Partition, "offset", l.Offset, "error", l.Cause.Text, "hint", l.Cause.Hint)
	}
}

// outcome writes an outcome at the end of a partition's chain. It counts for nothing until
// settle.
func (d *letters) outcome(ctx context.Context, p Partition, o *Outcome) (at int64, err error) {
	o.Topic, o.Partition, o.Time, o.Prev = p.Topic, p.Number, time.Now().UTC(), d.parts[p].head
	at, err = d.out.write(ctx, &DeadRecord{Outcome: o})
	Failpoint("dlq-intended")
	return at, err
}

// after returns what the position of a partition's head is once an outcome counts.
func (d *letters) after(p Partition, at int64, o *Outcome) Position {
	s := d.parts[p]
	gone := len(o.Applied) + len(o.Dropped)
	low := at + 1
	if s.count > gone {
		low = s.low() // some of it may be gone: it is the lower bound that counts
	}
	return Position{Offset: at + 1, Place: Place{Pos: uint64(low)}, N: uint64(s.count - gone)}
}

// settle has an outcome count: the target has its place.
func (d *letters) settle(ctx context.Context, p Partition, at int64, o *Outcome) error {
	Failpoint("dlq-applied")
	s := d.parts[p]
	d.total -= s.count
	s.settle(o)
	s.head = at
	d.total += s.count
	d.cfg.Monitor.letter("applied", len(o.Applied))
	d.cfg.Monitor.letter("dropped", len(o.Dropped))
	d.cfg.Monitor.letter("refused_again", len(o.Again))
	return d.tell(ctx, p)
}

// tell tells readers how far the entries of a partition count, if they do not know.
func (d *letters) tell(ctx context.Context, p Partition) error {
	s := d.parts[p]
	if told, ok := d.told[p]; s.head < 0 || ok && told == s.head {
		return nil
	}
	d.gauge()
	d.told[p] = s.head
	_, err := d.out.write(ctx, &DeadRecord{Head: &Head{Topic: p.Topic, Partition: p.Number, Head: s.head, Low: s.low()}})
	return err
}

// gauge tells the monitor what is parked.
func (d *letters) gauge() {
	keys := 0
	var oldest time.Time
	for _, s := range d.parts {
		keys += len(s.lanes)
		for _, l := range s.lanes {
			if first := (*l)[0].time; oldest.IsZero() || first.Before(oldest) {
				oldest = first
			}
		}
	}
	d.cfg.Monitor.parked(d.total, keys, oldest)
}
