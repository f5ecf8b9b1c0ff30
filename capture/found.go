package capture

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tailrace/tailrace/stream"
)

// found is what the topics hold, whatever the state says of them: the ground on which a
// new epoch begins.
type found struct {
	r       *resolution
	cfg     *Config
	routing routingState
	epoch   uint64 // the highest in any tail
}

// find looks at every topic that the state knows, and at those that hold records of a
// capture under the prefix although it does not.
func (f *found) find(ctx context.Context, repartitioned []string) error {
	s := f.r.s
	topics := make(map[string]bool)
	for id := range s.partitions {
		topics[id.Topic] = true
	}
	for name, t := range s.routing.Topics {
		topics[name] = true
		if s.closed(&t) { // nothing goes there any more
			delete(topics, name)
			f.routing.Topics[name] = t
		}
	}
	infos, err := f.cfg.Client.Topics(ctx)
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	there := make(map[string]int32)
	for _, t := range infos {
		there[t.Name] = t.Partitions
		if f.mayBeOurs(t.Name) && !topics[t.Name] {
			if err := f.adopt(ctx, t.Name, t.Partitions); err != nil {
				return err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(topics)) {
		if err := f.topic(ctx, name, there[name], slices.Contains(repartitioned, name)); err != nil {
			return err
		}
	}
	return nil
}

// mayBeOurs says whether a topic is called as one of the capture's. Names with more parts
// may be those of another capture with a longer prefix.
func (f *found) mayBeOurs(name string) bool {
	rest, ok := strings.CutPrefix(name, f.cfg.Naming.Prefix+".")
	return ok && (name == f.cfg.EndTopic() || strings.Count(rest, ".") == 1)
}

// adopt takes up a topic that the state does not know, if it holds records of a capture.
func (f *found) adopt(ctx context.Context, name string, partitions int32) error {
	ours := false
	var tails []tail
	for p := range partitions {
		t, _, err := f.tail(ctx, PartitionID{name, p}, partitionState{Offset: -1})
		if err != nil {
			return err
		}
		if t.flags&stream.FlagEnd != 0 && name != f.cfg.EndTopic() {
			return nil // of a capture whose prefix begins with ours
		}
		ours = ours || t.known
		tails = append(tails, t)
	}
	if !ours {
		return nil
	}
	var records uint64
	for p := range partitions {
		f.put(PartitionID{name, p}, &tails[p], 0)
		records += tails[p].n
	}
	f.tell(name, -1, "is taken up: it holds records of a capture that the state does not know (%d were written)", records)
	return nil
}

// topic brings the state of one topic in line with what is there.
func (f *found) topic(ctx context.Context, name string, there int32, repartition bool) error {
	s := f.r.s
	route, routed := s.routing.Topics[name]
	if there == 0 {
		f.tell(name, -1, "is gone, with all that it held; it is made anew")
		for id := range s.partitions {
			if id.Topic == name {
				f.r.records = append(f.r.records, stateRecord{key: partitionKey(id)})
			}
		}
		return nil
	}
	partitions := there
	switch {
	case !routed:
	case there < route.Partitions:
		f.tell(name, -1, "was made anew with %d partitions; it had %d", there, route.Partitions)
		route.Partitions = there
	case repartition:
		f.tell(name, -1, "its keys go to %d partitions; so far to %d", there, route.Partitions)
		route.Partitions = there
	default:
		partitions = route.Partitions
	}
	if routed {
		f.routing.Topics[name] = route
	}
	for p := range partitions {
		if err := f.partition(ctx, PartitionID{name, p}); err != nil {
			return err
		}
	}
	for id := range s.partitions {
		if id.Topic == name && id.Number >= there {
			f.r.records = append(f.r.records, stateRecord{key: partitionKey(id)})
		}
	}
	return nil
}

// partition brings the state of one partition in line with its end.
func (f *found) partition(ctx context.Context, id PartitionID) error {
	rec, recorded := f.r.s.partitions[id]
	if !recorded {
		rec.Offset = -1
	}
	t, foreign, err := f.tail(ctx, id, rec)
	if err != nil {
		return err
	}
	past := rec.Past
	if foreign.records > 0 {
		f.tell(id.Topic, id.Number, "holds %d records of somebody else, the last at offset %d; they stay, and readers stop at them", foreign.records, foreign.last)
		past = foreign.last + 1
	}
	f.put(id, &t, past)
	return nil
}

type foreign struct {
	records int64
	last    int64 // offset
}

// tail reads the end of a partition, and tells where it is not as the state says. What a
// start makes of it counts, if it makes something of it. Else what is there counts, and where
// nothing of ours is there any more, the numbers go on from the state.
func (f *found) tail(ctx context.Context, id PartitionID, rec partitionState) (tail, foreign, error) {
	t, err := readTail(ctx, f.cfg, id, rec)
	if err == nil {
		if want := rec.at(f.r.s.oldest()); t.n < want {
			f.tell(id.Topic, id.Number, "ends at n = %d, the state says that %d were written: %d records are lost", t.n, want, want-t.n)
		}
		return t, foreign{}, nil
	}
	at, err := f.cfg.Client.WaitStable(ctx, id.Topic, id.Number)
	if err != nil && !errors.Is(err, stream.ErrHanging) {
		return tail{}, foreign{}, fmt.Errorf("wait for %s: %w", id, err)
	}
	from := max(rec.Offset, rec.Past, at.Start)
	if rec.Offset >= at.End {
		from = at.Start
	}
	last, err := f.cfg.Client.Tail(ctx, id.Topic, id.Number, from)
	if err != nil {
		return tail{}, foreign{}, fmt.Errorf("read the end of %s: %w", id, err)
	}
	t = tail{n: rec.N, place: rec.Place, flags: readFlag(rec.Read), offset: at.End - 1}
	if last.Found {
		t = tail{n: last.Mark.N, place: last.Mark.Place, known: true, flags: last.Mark.Flags, offset: last.Offset}
	}
	switch {
	case rec.Offset >= at.End && rec.Offset >= 0:
		if !last.Found {
			t = tail{offset: at.End - 1} // its birth
		}
		f.tell(id.Topic, id.Number, "ends at offset %d, but a record was acknowledged at %d: the broker has lost records, or the topic was made anew", at.End, rec.Offset)
	case last.Found && t.n < rec.N:
		f.tell(id.Topic, id.Number, "ends at n = %d, the state says that %d were written: %d records are lost", t.n, rec.N, rec.N-t.n)
	}
	return t, foreign{last.Foreign, last.ForeignOffset}, nil
}

func (f *found) put(id PartitionID, t *tail, past int64) {
	f.epoch = max(f.epoch, t.place.Epoch)
	f.r.put(id, t, past)
}

func (f *found) tell(topic string, partition int32, format string, args ...any) {
	f.r.effect.Topics = append(f.r.effect.Topics, TopicEffect{Topic: topic, Partition: partition, What: fmt.Sprintf(format, args...)})
}
