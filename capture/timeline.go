package capture

import "github.com/tailrace/tailrace/stream"

// Fork is where a log left an earlier timeline: what that one held beyond At, this log
// does not.
type Fork struct {
	Timeline uint32
	At       Position
}

// fork says where the log left a timeline; ok is false if it never was on it.
func (i *LogInfo) fork(timeline uint32) (at Position, ok bool) {
	for _, f := range i.Forks {
		if f.Timeline == timeline {
			return f.At, true
		}
	}
	return Position{}, false
}

// checkTimeline makes sure that what was written before a standby was promoted, or a
// server restored, stands in the log as it is now: neither a position nor a tail lies
// beyond the place where the two part. tails is nil while they are not known.
func checkTimeline(s *state, tails map[PartitionID]tail, info *LogInfo) error {
	const hint = "the topics hold changes that the database does not"
	for _, p := range s.positions {
		if p == nil || p.Timeline == info.Timeline || p.Timeline == 0 || info.Timeline == 0 {
			continue
		}
		at, ok := info.fork(p.Timeline)
		if !ok {
			return epochf(hint, "the database is on timeline %d, which does not come from timeline %d that the capture has read", info.Timeline, p.Timeline)
		}
		if p.Position.Compare(at) > 0 {
			return epochf(hint, "the capture has read timeline %d to %s, but the database left it at %s for timeline %d", p.Timeline, p.Position, at, info.Timeline)
		}
		for id, t := range tails {
			if t.place.Epoch == p.Epoch && placePosition(t.place).Compare(at) >= 0 {
				return epochf(hint, "partition %s ends at %s, but the database left timeline %d at %s", id, placeText(t.place), p.Timeline, at)
			}
		}
	}
	return nil
}

// newTimeline returns the position records as the log's present timeline has them, if one
// is of another: to be durable before the first record, since a tail that is written now
// lies beyond the place where the timelines part.
func newTimeline(s *state, timeline uint32) (records []stateRecord) {
	for slot, p := range s.positions {
		if p != nil && p.Timeline != timeline {
			now := *p
			now.Timeline = timeline
			records = append(records, stateRecord{key: positionKey(slot), value: mustJSON(now)})
		}
	}
	return records
}

func placePosition(p stream.Place) Position { return Position{File: p.File, Offset: p.Pos} }
