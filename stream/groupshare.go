package stream

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/segmentio/kafka-go/protocol/joingroup"
	"github.com/segmentio/kafka-go/protocol/offsetcommit"
	"github.com/segmentio/kafka-go/protocol/offsetfetch"
	"github.com/segmentio/kafka-go/protocol/syncgroup"
)

// share plans who gets which partitions: the leader's work.
func (m *member) share(ctx context.Context, g *Generation, members []joingroup.ResponseMember) ([]syncgroup.RequestAssignment, error) {
	all := make([]subscriber, 0, len(members))
	wanted := make(map[string]bool)
	for _, r := range members {
		topics, owned, err := parseSubscription(r.Metadata)
		if err != nil {
			return nil, fmt.Errorf("%s %s: member %s: %w", opJoin, m.cfg.Group, r.MemberID, err)
		}
		for _, t := range topics {
			wanted[t] = true
		}
		all = append(all, subscriber{id: r.MemberID, topics: topics, owned: owned})
	}
	var err error
	if g.shared, err = m.partitions(ctx, slices.Sorted(maps.Keys(wanted))); err != nil {
		return nil, err
	}
	plan := shareEvenly
	if m.cfg.Single {
		plan = shareSingle
	}
	plan(all, g.shared)
	out := make([]syncgroup.RequestAssignment, 0, len(all))
	for i := range all {
		out = append(out, syncgroup.RequestAssignment{MemberID: all[i].id, Assignment: appendAssignment(nil, all[i].partitions)})
	}
	return out, nil
}

// partitions asks how many partitions topics have; those that are not there
// are left out.
func (m *member) partitions(ctx context.Context, topics []string) (map[string]int32, error) {
	res, err := m.client.metadata(ctx, topics)
	if err != nil {
		return nil, err
	}
	counts := make(map[string]int32)
	for i := range res.Topics {
		switch t := &res.Topics[i]; Code(t.ErrorCode) {
		case 0, codeLeaderNotAvailable:
			counts[t.Name] = int32(len(t.Partitions))
		case codeTopicNotAuthorized:
			return nil, answered(opMetadata, t.Name, -1, codeTopicNotAuthorized, "")
		}
	}
	return counts, nil
}

// grown says whether there are partitions that the generation does not share.
func (m *member) grown(ctx context.Context, g *Generation) bool {
	now, err := m.partitions(ctx, m.cfg.Topics)
	if err != nil {
		return false
	}
	for topic, n := range now {
		if n > g.shared[topic] {
			return true
		}
	}
	return false
}

// subscriber is a member as the leader sees it.
type subscriber struct {
	id         string
	topics     []string
	owned      int32
	partitions []Partition // out
}

// shareEvenly gives each partition to the member that has the fewest so far
// among those that want it; the first by name if several do.
func shareEvenly(all []subscriber, topics map[string]int32) {
	slices.SortFunc(all, func(a, b subscriber) int { return cmp.Compare(a.id, b.id) })
	for _, p := range sortedPartitions(topics) {
		least := -1
		for i := range all {
			if slices.Contains(all[i].topics, p.Topic) && (least < 0 || len(all[i].partitions) < len(all[least].partitions)) {
				least = i
			}
		}
		if least >= 0 {
			all[least].partitions = append(all[least].partitions, p)
		}
	}
}

// shareSingle gives everything to the member that had it last, else to the
// first by name.
func shareSingle(all []subscriber, topics map[string]int32) {
	slices.SortFunc(all, func(a, b subscriber) int {
		return cmp.Or(cmp.Compare(b.owned, a.owned), cmp.Compare(a.id, b.id))
	})
	for _, p := range sortedPartitions(topics) {
		if slices.Contains(all[0].topics, p.Topic) {
			all[0].partitions = append(all[0].partitions, p)
		}
	}
}

func sortedPartitions(topics map[string]int32) []Partition {
	var all []Partition
	for topic, n := range topics {
		for i := range n {
			all = append(all, Partition{topic, i})
		}
	}
	slices.SortFunc(all, comparePartitions)
	return all
}

func comparePartitions(a, b Partition) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Number, b.Number))
}

// appendSubscription appends what a member says of itself, in version 0 of
// Kafka's consumer protocol (ConsumerProtocolSubscription.json), so that
// Kafka's tools can show it:
//
//	int16 version | int32 count | { int16 length | topic } … | int32 length | user data
//
// The user data are ours: the last generation in which the member had all
// partitions, int32, 0 for never.
func appendSubscription(dst []byte, topics []string, owned int32) []byte {
	dst = binary.BigEndian.AppendUint16(dst, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(topics)))
	for _, t := range topics {
		dst = appendText(dst, t)
	}
	dst = binary.BigEndian.AppendUint32(dst, 4)
	return binary.BigEndian.AppendUint32(dst, uint32(owned))
}

func parseSubscription(b []byte) (topics []string, owned int32, err error) {
	p := groupBytes{b: b}
	p.int16()
	for n := p.count(2); n > 0 && !p.bad; n-- {
		topics = append(topics, p.text())
	}
	if n := p.int32(); n == 4 {
		owned = p.int32()
	}
	if p.bad {
		return nil, 0, errors.New("its subscription cannot be read")
	}
	return topics, owned, nil
}

// appendAssignment appends what a member is given, in version 0 of the
// consumer protocol (ConsumerProtocolAssignment.json):
//
//	int16 version | int32 count | { int16 length | topic | int32 count | int32 partition … } … | int32 length | user data
//
// partitions must be sorted.
func appendAssignment(dst []byte, partitions []Partition) []byte {
	dst = binary.BigEndian.AppendUint16(dst, 0)
	at := len(dst)
	dst = binary.BigEndian.AppendUint32(dst, 0)
	var topics uint32
	for i := 0; i < len(partitions); topics++ {
		n := i
		for n < len(partitions) && partitions[n].Topic == partitions[i].Topic {
			n++
		}
		dst = appendText(dst, partitions[i].Topic)
		dst = binary.BigEndian.AppendUint32(dst, uint32(n-i))
		for ; i < n; i++ {
			dst = binary.BigEndian.AppendUint32(dst, uint32(partitions[i].Number))
		}
	}
	binary.BigEndian.PutUint32(dst[at:], topics)
	return binary.BigEndian.AppendUint32(dst, 0)
}

// parseAssignment reads an assignment; no bytes at all are no partitions.
func parseAssignment(b []byte) ([]Partition, error) {
	if len(b) == 0 {
		return nil, nil
	}
	p := groupBytes{b: b}
	p.int16()
	var all []Partition
	for n := p.count(6); n > 0 && !p.bad; n-- {
		topic := p.text()
		for m := p.count(4); m > 0 && !p.bad; m-- {
			all = append(all, Partition{topic, p.int32()})
		}
	}
	if p.bad {
		return nil, errors.New("the assignment cannot be read")
	}
	slices.SortFunc(all, comparePartitions)
	return all, nil
}

func appendText(dst []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}

// groupBytes reads big-endian numbers and texts; bad stays set after the first
// that is not there.
type groupBytes struct {
	b   []byte
	bad bool
}

func (p *groupBytes) take(n int) []byte {
	if n < 0 || n > len(p.b) {
		p.bad, p.b = true, nil
		return nil
	}
	out := p.b[:n]
	p.b = p.b[n:]
	return out
}

func (p *groupBytes) int16() int16 {
	if b := p.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (p *groupBytes) int32() int32 {
	if b := p.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

// count reads how many things of at least size bytes follow.
func (p *groupBytes) count(size int) int {
	n := int(p.int32())
	if n < 0 || n > len(p.b)/size {
		p.bad = true
		return 0
	}
	return n
}

func (p *groupBytes) text() string { return string(p.take(int(p.int16()))) }

// Committed returns the offsets that the group has committed for the
// generation's partitions: where each is to be read next. Those without one
// are left out.
func (g *Generation) Committed(ctx context.Context) (map[Partition]int64, error) {
	m := g.member
	req := &offsetfetch.Request{GroupID: m.cfg.Group, Topics: []offsetfetch.RequestTopic{}}
	for _, p := range g.partitions {
		if n := len(req.Topics); n == 0 || req.Topics[n-1].Name != p.Topic {
			req.Topics = append(req.Topics, offsetfetch.RequestTopic{Name: p.Topic})
		}
		t := &req.Topics[len(req.Topics)-1]
		t.PartitionIndexes = append(t.PartitionIndexes, p.Number)
	}
	var offsets map[Partition]int64
	err := m.client.retry(ctx, m.client.timeout, func(ctx context.Context) error {
		res, err := m.ask(ctx, opCommitted, req, answerTimeout)
		if err != nil {
			return err
		}
		offsets, err = m.committed(res.(*offsetfetch.Response))
		return err
	})
	return offsets, err
}

func (m *member) committed(r *offsetfetch.Response) (map[Partition]int64, error) {
	if r.ErrorCode != 0 {
		return nil, m.answered(opCommitted, Code(r.ErrorCode))
	}
	offsets := make(map[Partition]int64)
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				return nil, about(m.answered(opCommitted, Code(p.ErrorCode)), t.Name, p.PartitionIndex)
			}
			if p.CommittedOffset >= 0 {
				offsets[Partition{t.Name, p.PartitionIndex}] = p.CommittedOffset
			}
		}
	}
	return offsets, nil
}

// Commit notes in the group where each of the partitions is to be read next.
// The coordinator refuses it with an ErrGeneration if the partitions may be
// another member's by now. It may be called after the generation's context has
// ended, until fn returns, with a context of its own.
func (g *Generation) Commit(ctx context.Context, offsets map[Partition]int64) error {
	if len(offsets) == 0 {
		return nil
	}
	m := g.member
	req := &offsetcommit.Request{GroupID: m.cfg.Group, GenerationID: g.id, MemberID: g.memberID}
	for _, p := range g.partitions {
		offset, ok := offsets[p]
		if !ok {
			continue
		}
		if n := len(req.Topics); n == 0 || req.Topics[n-1].Name != p.Topic {
			req.Topics = append(req.Topics, offsetcommit.RequestTopic{Name: p.Topic})
		}
		t := &req.Topics[len(req.Topics)-1]
		t.Partitions = append(t.Partitions, offsetcommit.RequestPartition{PartitionIndex: p.Number, CommittedOffset: offset, CommittedLeaderEpoch: -1})
	}
	return m.client.retry(ctx, m.client.timeout, func(ctx context.Context) error {
		res, err := m.ask(ctx, opCommit, req, answerTimeout)
		if err != nil {
			return err
		}
		return m.commitVerdict(res.(*offsetcommit.Response))
	})
}

func (m *member) commitVerdict(r *offsetcommit.Response) error {
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			code := Code(p.ErrorCode)
			switch code {
			case 0:
				continue
			case codeIllegalGeneration, codeUnknownMember, codeRebalancing, codeFencedInstance:
				return fmt.Errorf("%s %s: %w (%s)", opCommit, m.cfg.Group, ErrGeneration, groupNames[code])
			}
			return about(m.answered(opCommit, code), t.Name, p.PartitionIndex)
		}
	}
	return nil
}
