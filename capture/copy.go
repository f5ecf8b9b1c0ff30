package capture

import (
	"context"
	"strings"

	"github.com/tailrace/tailrace/stream"
)

// copyRoute is a topic to which a table's changes are written too, while rows of a backfill
// that is addressed to it are read: without them an old row could win there.
type copyRoute struct {
	topic *topicRoute
	from  stream.Place  // of transactions behind it
	until *stream.Place // up to it; nil: still
}

// holds says whether a transaction's changes are copied; a replay finds the same.
func (c *copyRoute) holds(tx stream.Place) bool {
	tx.Row = 0
	return c.from.Compare(tx) < 0 && (c.until == nil || tx.Compare(*c.until) <= 0)
}

// checkCopy says whether a backfill can be addressed to a topic.
func (e *engine) checkCopy(b *Backfill) error {
	name, prefix := b.ToTopic, e.p.cfg.Naming.Prefix+"."
	switch _, used := e.p.routes.saved.Topics[name]; {
	case name == "":
		return nil
	case strings.HasPrefix(name, prefix) || strings.HasPrefix(name, "__"):
		return stopf("sinks take topics that begin with "+prefix+" for tables: choose a name that begins otherwise", "rows cannot be addressed to topic %s", name)
	case used:
		return stopf("choose a new name for each such backfill", "topic %s was used for another backfill", name)
	}
	return nil
}

// openCopy makes the topic that a backfill is addressed to, and has the table's changes
// copied there from here on. It returns the records that say so.
func (e *engine) openCopy(ctx context.Context, j *job) ([]stateRecord, error) {
	name := j.b.ToTopic
	if name == "" || e.p.routes.topics[name] != nil {
		return nil, nil
	}
	p := e.p
	t := topicState{From: p.prog.passed(p.tx), Partitions: p.cfg.Topics.Partitions, Collection: j.b.Table(), Of: e.topicOf(j.b.Namespace, j.b.Name)}
	topic, records, err := p.newTopic(ctx, name, t)
	if err != nil {
		return nil, err
	}
	p.routes.copyTo(t.Of, &copyRoute{topic: topic, from: t.From})
	return records, nil
}

// closeCopy ends the copying for a backfill that has ended.
func (e *engine) closeCopy(j *job) []stateRecord {
	r := e.p.routes
	t, ok := r.saved.Topics[j.b.ToTopic]
	if !ok || t.Of == "" || t.Until != nil {
		return nil
	}
	until := e.p.prog.passed(e.p.tx)
	t.Until = &until
	r.saved.Topics[j.b.ToTopic] = t
	for _, c := range r.copies[t.Of] {
		if c.topic.name == j.b.ToTopic {
			c.until = t.Until
		}
	}
	return []stateRecord{{key: routingKey, value: mustJSON(r.saved)}}
}

// copyTo has the changes of a topic copied.
func (r *routes) copyTo(of string, c *copyRoute) {
	r.copies[of] = append(r.copies[of], c)
	if t := r.topics[of]; t != nil {
		t.copies = r.copies[of]
	}
}

// closed says that a topic's copying has ended before any replay begins: it may be deleted.
func (s *state) closed(t *topicState) bool {
	if t.Until == nil {
		return false
	}
	for _, p := range s.positions {
		if p == nil {
			continue
		}
		at := stream.Place{Epoch: p.Epoch, File: p.Order.File, Pos: p.Order.Pos, Row: ^uint64(0)}
		if at.Compare(*t.Until) < 0 {
			return false
		}
	}
	return true
}
