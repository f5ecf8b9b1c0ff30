package sinks

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tailrace/tailrace/stream"
)

// Positions keeps the positions of a sink whose target has no place for them, and a fence
// for each partition: in a compacted topic of one partition, __tailrace.<sink>.positions.
// Its order is what decides who owns a partition.
//
// A record's key is position/<topic>/<partition>/<owner>, its value the fence that the owner
// raised and how far the owner came. The owner with the highest fence is the owner; what
// others write later under a lower one counts for nothing, and cannot hide what counts,
// since each owner has keys of its own. Who takes a partition
//
//  1. reads the topic, and writes its claim: a fence one higher, and no position;
//  2. reads again. Whoever claimed the same in between is beaten by claiming once more;
//  3. writes under its own key the position of the highest fence, and removes the other keys,
//     in one record batch.
//
// Between 1 and 2 the predecessor may write a last position. It is true, because nothing
// was delivered since by anybody else, so that it is taken over.
//
// A position is written when the target has acknowledged everything before it. Thus nothing
// is skipped, whatever dies when; what was delivered after the last position is delivered
// again. A predecessor that is frozen and wakes up can still deliver what it has in hand:
// it learns with its next position that it was replaced.
type Positions struct {
	client   *stream.Client
	topic    string
	owner    string // one word; another with each Take
	producer *stream.Producer
	next     int64                               // the topic has been read up to here
	known    map[Partition]map[string]heldRecord // by owner
	held     map[Partition]uint64                // the fences that this owner raised
	batch    stream.Batch
}

// heldRecord is the value of a record.
type heldRecord struct {
	Fence uint64      `json:"fence"`
	At    *heldPlaced `json:"at,omitempty"` // nil: a claim
}

// heldPlaced is a Position in JSON.
type heldPlaced struct {
	Offset int64  `json:"offset"`
	Epoch  uint64 `json:"epoch"`
	File   uint64 `json:"file,omitempty"`
	Pos    uint64 `json:"pos"`
	Row    uint64 `json:"row"`
	N      uint64 `json:"n"`
}

// PositionsTopic returns the topic in which a sink's positions are kept, if its target
// cannot.
func PositionsTopic(sink string) string { return "__tailrace." + sink + ".positions" }

// NewPositions returns the positions of a sink for one run. It asks the broker for nothing:
// Take does.
func NewPositions(client *stream.Client, sink string) *Positions {
	return &Positions{client: client, topic: PositionsTopic(sink)}
}

// maxClaims bounds how often a claim is repeated because others claim at the same time.
const maxClaims = 5

// Take raises the fences of partitions and returns the positions that are known. It is
// what Sink.Take has to do.
func (s *Positions) Take(ctx context.Context, ps []Partition) (map[Partition]Position, error) {
	if err := s.open(ctx); err != nil {
		return nil, fmt.Errorf("take the partitions: %w", err)
	}
	for range maxClaims {
		if err := s.claim(ctx, ps); err != nil {
			return nil, fmt.Errorf("take the partitions: %w", err)
		}
		if s.owns(ps) {
			at := s.positions(ps)
			return at, s.settle(ctx, at)
		}
	}
	return nil, fmt.Errorf("take the partitions: %w again and again", ErrFenced)
}

// open makes sure of the topic, and reads it anew, as an owner of another name: a claim
// must not be written over a position.
func (s *Positions) open(ctx context.Context) error {
	info, err := s.client.EnsureTopic(ctx, stream.TopicSpec{
		Name: s.topic, Partitions: 1, Create: true,
		Config: map[string]string{"cleanup.policy": "compact", "segment.bytes": "16777216", "min.cleanable.dirty.ratio": "0.1"},
	})
	if err != nil {
		return err
	}
	if info.Partitions != 1 {
		return stopf("it must have one: the order of its records decides who owns a partition; delete it with Kafka's tools; then everything that the topics of changes hold is delivered again",
			"topic %s has %d partitions", s.topic, info.Partitions)
	}
	if s.producer, err = s.client.NewProducer(ctx, stream.ProducerConfig{}); err != nil {
		return err
	}
	s.owner = rand.Text()
	s.next, s.known, s.held = 0, make(map[Partition]map[string]heldRecord), make(map[Partition]uint64)
	return s.read(ctx)
}

// claim raises the fences above all that are known, and reads what was written meanwhile.
func (s *Positions) claim(ctx context.Context, ps []Partition) error {
	for _, p := range ps {
		var highest uint64
		for _, r := range s.known[p] {
			highest = max(highest, r.Fence)
		}
		s.held[p] = highest + 1
		if err := s.put(p, s.owner, &heldRecord{Fence: highest + 1}); err != nil {
			return err
		}
	}
	return s.flush(ctx)
}

// owns says whether nobody else has a fence as high as ours.
func (s *Positions) owns(ps []Partition) bool {
	for _, p := range ps {
		for owner, r := range s.known[p] {
			if owner != s.owner && r.Fence >= s.held[p] {
				return false
			}
		}
	}
	return true
}

// positions returns for each partition the position that was written under the highest fence.
func (s *Positions) positions(ps []Partition) map[Partition]Position {
	all := make(map[Partition]Position)
	for _, p := range ps {
		var highest heldRecord
		for _, r := range s.known[p] {
			if r.At != nil && r.Fence >= highest.Fence {
				highest = r
			}
		}
		if highest.At != nil && *highest.At != (heldPlaced{}) {
			all[p] = highest.At.position()
		}
	}
	return all
}

// settle writes what was taken over under our own keys, also that there is no position yet,
// and removes the other keys.
func (s *Positions) settle(ctx context.Context, at map[Partition]Position) error {
	for p := range s.held {
		if err := s.put(p, s.owner, &heldRecord{s.held[p], placed(at[p])}); err != nil {
			return err
		}
		for owner := range s.known[p] {
			if owner != s.owner {
				if err := s.put(p, owner, nil); err != nil {
					return err
				}
			}
		}
	}
	return s.flush(ctx)
}

// Write makes positions durable. If one of the partitions was taken by another owner since,
// it returns ErrFenced, and what it wrote counts for nothing.
func (s *Positions) Write(ctx context.Context, positions map[Partition]Position) error {
	if len(positions) == 0 {
		return nil
	}
	for p, at := range positions {
		fence, ok := s.held[p]
		if !ok {
			return fmt.Errorf("write the position of %s/%d: %w", p.Topic, p.Number, errNotTaken)
		}
		if err := s.put(p, s.owner, &heldRecord{fence, placed(at)}); err != nil {
			return err
		}
	}
	if err := s.flush(ctx); err != nil {
		return fmt.Errorf("write positions: %w", err)
	}
	if !s.owns(slices.Collect(maps.Keys(positions))) {
		return ErrFenced
	}
	return nil
}

var errNotTaken = errors.New("the partition was not taken")

// put adds a record to the batch; nil removes the key.
func (s *Positions) put(p Partition, owner string, r *heldRecord) error {
	key := "position/" + p.Topic + "/" + strconv.Itoa(int(p.Number)) + "/" + owner
	var value []byte
	if r != nil {
		var err error
		if value, err = json.Marshal(r); err != nil {
			return err
		}
	}
	return s.batch.Append(time.Now().UnixMilli(), []byte(key), value, nil)
}

// flush writes the batch, and reads what others have written meanwhile, if they have.
func (s *Positions) flush(ctx context.Context) error {
	count := int64(s.batch.Len())
	if count == 0 {
		return nil
	}
	if err := s.batch.Seal(stream.None, false); err != nil {
		return err
	}
	out := &stream.Outgoing{Topic: s.topic, Batch: &s.batch}
	err := s.producer.Produce(ctx, []*stream.Outgoing{out})
	s.batch.Reset()
	if err != nil {
		return err
	}
	if out.Offset == s.next {
		s.next += count // nobody else has written since
		return nil
	}
	return s.read(ctx)
}

// read reads the topic on to its end.
func (s *Positions) read(ctx context.Context) error {
	next, err := s.client.ReadCompacted(ctx, s.topic, 0, s.next, s.note)
	if err != nil {
		return err
	}
	s.next = next
	return nil
}

// note takes in one record of the topic.
func (s *Positions) note(r *stream.Record) error {
	p, owner, ok := parsePositionKey(string(r.Key))
	if !ok {
		return s.foreign(r)
	}
	if r.Value == nil {
		delete(s.known[p], owner)
		return nil
	}
	var h heldRecord
	d := json.NewDecoder(bytes.NewReader(r.Value))
	d.DisallowUnknownFields()
	if err := d.Decode(&h); err != nil {
		return s.foreign(r)
	}
	if s.known[p] == nil {
		s.known[p] = make(map[string]heldRecord)
	}
	s.known[p][owner] = h
	return nil
}

func (s *Positions) foreign(r *stream.Record) error {
	return stopf("if a newer tailrace wrote it, run that version; nobody else may write there. Without the topic everything that the topics of changes hold is delivered again: to have that, delete it with Kafka's tools",
		"topic %s has a record at offset %d that is not a position", s.topic, r.Offset)
}

// parsePositionKey reads what put writes.
func parsePositionKey(key string) (p Partition, owner string, ok bool) {
	parts := strings.Split(key, "/") // a topic's name has none
	if len(parts) != 4 || parts[0] != "position" {
		return p, "", false
	}
	n, err := strconv.ParseInt(parts[2], 10, 32)
	return Partition{Topic: parts[1], Number: int32(n)}, parts[3], err == nil && n >= 0
}

func placed(p Position) *heldPlaced {
	return &heldPlaced{Offset: p.Offset, Epoch: p.Epoch, File: p.File, Pos: p.Pos, Row: p.Row, N: p.N}
}

func (h *heldPlaced) position() Position {
	return Position{Offset: h.Offset, Place: Place{Epoch: h.Epoch, File: h.File, Pos: h.Pos, Row: h.Row}, N: h.N}
}
