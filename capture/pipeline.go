package capture

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/stream"
)

const (
	// batchBytes closes a partition's batch: below the 1 MiB that brokers take by default,
	// and so far below that a batch's buffer, as it grows, is one that is kept.
	batchBytes = 700 << 10
	// flushBytes hands a group to the sender, complete or not.
	flushBytes = 4 << 20
	// splitBytes ends the Kafka transaction of a source transaction that is larger.
	splitBytes = 64 << 20
	// idlePause is the least time between two state writes that only move the position of
	// an idle log forward.
	idlePause = time.Second
)

// pipeline is the Emitter of a run. All its methods run in the source's goroutine.
type pipeline struct {
	cfg    *Config
	log    *slog.Logger
	prog   *progress
	routes *routes
	send   *sender
	engine *engine

	group   *group // being filled; nil while it waits in the sender's channel
	parked  bool   // the group in the channel may still be taken back
	confirm func(Position)

	// the source transaction in flight
	open    bool
	tx      stream.Place // its place; Row is the ordinal of the last record
	flags   byte         // of the marks of its records
	txID    []byte
	txTime  int64 // commit time, microseconds
	txSeq   uint64
	now     int64 // milliseconds, for the records' timestamps
	touched []*partition
	tables  []*topicRoute
	changes int64

	// the Kafka transaction that the next push goes to
	unended   int       // bytes handed over since the last cut
	unendedAt time.Time // when the first of them were

	anew    bool            // the snapshot to come is not the first
	first   []CapturedTable // which it is of
	exact   bool            // the last two cuts say lastCut, and the second confirms exactly
	lastCut Position        // position of the last cut
	idleAt  time.Time

	end     endRoute
	mark    []byte // scratch
	key     []byte
	value   []byte
	headers [3]stream.RecordHeader
	counts  []schemas.CollectionCount
	parts   []stream.EndPart
	hits    uint64 // changes, for mutants
}

// endRoute is where END records go.
type endRoute struct {
	topic          *topicRoute
	keyID, valueID int32
}

// Begin implements Emitter.
func (p *pipeline) Begin(tx *Tx) error {
	if p.open {
		return fmt.Errorf("transaction %s begins inside another", tx.ID)
	}
	p.open = true
	place := stream.Place{Epoch: p.prog.epoch, File: tx.File, Pos: tx.Pos}
	if p.flags = 0; tx.Read {
		p.flags = stream.FlagBackfill
		if place.Epoch == p.tx.Epoch && place.File == p.tx.File && place.Pos == p.tx.Pos {
			place.Row = p.tx.Row
		}
	}
	p.tx = place
	p.txID = append(p.txID[:0], tx.ID...)
	p.txTime = tx.CommitTime
	p.txSeq++
	p.now = time.Now().UnixMilli()
	p.cfg.Monitor.hear(p.now)
	p.touched, p.tables, p.changes = p.touched[:0], p.tables[:0], 0
	if p.prog.reading = tx.Read; !tx.Read {
		p.engine.begin(tx)
	}
	return nil
}

// Change implements Emitter: one record, or for a TRUNCATE one to each partition.
func (p *pipeline) Change(ctx context.Context, c *Change) error {
	failpoint("received")
	p.hits++
	if mutant("drop-row") && c.Op == 'c' && p.hits%500 == 0 || mutant("drop-tombstone") && c.Op == 0 && p.hits%20 == 0 {
		return nil
	}
	t := c.Route.topic
	if c.Op != 0 {
		first := t.txSeq != p.txSeq
		p.count(t)
		if t.tracker != nil && p.flags&stream.FlagBackfill == 0 {
			p.engine.change(t.tracker, c, first)
		}
	}
	n := 1
	if c.NewKey != nil {
		p.headers[n] = stream.RecordHeader{Key: "__debezium.newkey", Value: c.NewKey}
		n++
	}
	if c.OldKey != nil {
		p.headers[n] = stream.RecordHeader{Key: "__debezium.oldkey", Value: c.OldKey}
		n++
	}
	if err := p.writeTo(ctx, t, c, n); err != nil {
		return err
	}
	for _, to := range t.copies {
		if p.flags&stream.FlagBackfill == 0 && to.holds(p.tx) {
			if err := p.writeTo(ctx, to.topic, c, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeTo writes a change to one topic. headers is how many of p.headers are set.
func (p *pipeline) writeTo(ctx context.Context, t *topicRoute, c *Change, headers int) error {
	if c.Op == 't' {
		for _, part := range t.parts {
			if err := p.write(ctx, part, c.Key, c.Value, c.Op, headers); err != nil {
				return err
			}
		}
		return nil
	}
	part := t.partition(c.Key)
	if mutant("repeat-row") && p.hits%500 == 0 {
		if err := p.write(ctx, part, c.Key, c.Value, c.Op, headers); err != nil {
			return err
		}
	}
	return p.write(ctx, part, c.Key, c.Value, c.Op, headers)
}

// count notes a change for the END record.
func (p *pipeline) count(t *topicRoute) {
	if t.txSeq != p.txSeq {
		t.txSeq, t.count = p.txSeq, 0
		p.tables = append(p.tables, t)
	}
	t.count++
	p.changes++
}

// write gives a record its place and number and appends it to its partition's batch.
// headers is how many of p.headers are set; the first is the mark.
func (p *pipeline) write(ctx context.Context, part *partition, key, value []byte, op byte, headers int) error {
	p.tx.Row++
	if part.txSeq != p.txSeq {
		part.txSeq = p.txSeq
		p.touched = append(p.touched, part)
	}
	part.txRow = p.tx.Row
	n, write, err := p.prog.admit(part, p.tx, key, op)
	if err != nil || !write {
		return err
	}
	p.mark = stream.AppendMark(p.mark[:0], stream.Mark{Flags: p.flags, Place: p.tx, N: n})
	if err := p.put(part, key, value, headers); err != nil {
		return err
	}
	failpoint("appended")
	p.cfg.Monitor.count(op)
	if p.group.bytes >= flushBytes {
		return p.flush(ctx)
	}
	return nil
}

// put appends the record whose mark stands in p.mark.
func (p *pipeline) put(part *partition, key, value []byte, headers int) error {
	p.headers[0] = stream.RecordHeader{Key: stream.MarkKey, Value: p.mark}
	o := part.out
	if o == nil || o.batch.Size() >= batchBytes || o.batch.Len() > 0 && o.batch.Size()+len(key)+len(value) > batchBytes+64<<10 {
		o = p.group.next(part)
		part.out = o
	}
	before := o.batch.Size()
	if err := o.batch.Append(p.now, key, value, p.headers[:headers]); err != nil {
		return stopf("leave the column out, or store it elsewhere", "append a record of %d bytes to %s: %w", len(key)+len(value), part.id, err)
	}
	p.group.bytes += o.batch.Size() - before
	return nil
}

// Commit implements Emitter: writes the END record and lets the group go if the sender
// has nothing to do.
func (p *pipeline) Commit(ctx context.Context, end Position) error {
	if !p.open {
		return fmt.Errorf("commit at %d without a transaction", end.Offset)
	}
	if len(p.touched) > 0 {
		if err := p.writeEnd(); err != nil {
			return err
		}
	}
	p.open = false
	if err := p.prog.commit(order{File: p.tx.File, Pos: p.tx.Pos}, end, len(p.touched) > 0); err != nil {
		return err
	}
	p.group.commits++
	if p.flags&stream.FlagBackfill == 0 {
		p.group.commitTime = p.txTime
		p.endNotes()
	}
	if mutant("ack-early") {
		p.confirm(end)
	}
	if p.group.bytes >= flushBytes || p.unended > 0 || p.send.free() {
		if err := p.push(ctx, p.cutGroup()); err != nil {
			return err
		}
	}
	if !p.engine.due(p.now) {
		return nil
	}
	return p.engine.step(ctx, stepOne)
}

// endNotes ends the commit for those who note the changes of its tables.
func (p *pipeline) endNotes() {
	for _, t := range p.tables {
		if t.tracker != nil {
			t.tracker.End()
		}
	}
}

// writeEnd writes the END record of the transaction in flight: to one partition, with the
// last row of each partition that the transaction touched in its header.
func (p *pipeline) writeEnd() error {
	p.parts = p.parts[:0]
	for _, part := range p.touched {
		p.parts = append(p.parts, stream.EndPart{Topic: part.id.Topic, Partition: part.id.Number, Row: part.txRow})
	}
	p.counts = p.counts[:0]
	for _, t := range p.tables {
		p.counts = append(p.counts, schemas.CollectionCount{Name: t.collection, Count: t.count})
	}
	id := string(p.txID)
	p.key = schemas.AppendTransactionKey(schemas.AppendFrame(p.key[:0], p.end.keyID), id)
	p.value = schemas.AppendTransactionEnd(schemas.AppendFrame(p.value[:0], p.end.valueID), id, p.counts, p.txTime/1000)
	p.tx.Row++
	part := p.end.topic.parts[0]
	n, write, err := p.prog.admit(part, p.tx, p.key, opEnd)
	if err != nil || !write {
		return err
	}
	p.mark = stream.AppendMark(p.mark[:0], stream.Mark{Flags: p.flags | stream.FlagEnd, Place: p.tx, N: n})
	p.mark = stream.AppendEndParts(p.mark, p.parts)
	return p.put(part, p.key, p.value, 1)
}

// flush hands over a group that has grown large inside a source transaction. The Kafka
// transaction stays open, unless it is too large or too old already: then it is ended, and
// the source transaction is spread over several.
func (p *pipeline) flush(ctx context.Context) error {
	if p.unended+p.group.bytes >= splitBytes || p.overdue() {
		return p.push(ctx, p.cutGroup())
	}
	if p.unended == 0 {
		p.unendedAt = time.Now()
	}
	p.unended += p.group.bytes
	return p.push(ctx, p.group)
}

// overdue says that the Kafka transaction has been open for a quarter of its timeout.
func (p *pipeline) overdue() bool {
	return p.unended > 0 && time.Since(p.unendedAt) > p.cfg.TransactionTimeout/4
}

// cutGroup closes the group that is being filled with a cut.
func (p *pipeline) cutGroup() *group {
	p.group.cut = p.prog.cut()
	p.unended = 0
	p.lastCut, p.exact = p.group.cut.position.Position, false
	return p.group
}

// push hands the group being filled to the sender and takes an empty one. A group that the
// sender did not take before ctx ended is as it was, without a cut: finish makes another.
func (p *pipeline) push(ctx context.Context, g *group) error {
	g.close()
	select {
	case p.send.queue <- g:
		p.group = nil
	case <-ctx.Done():
		p.reopen(g)
		return context.Cause(ctx)
	}
	return p.take(ctx)
}

// reopen goes on filling a group that was closed and not sent.
func (p *pipeline) reopen(g *group) {
	if g.cut != nil {
		p.prog.undo(g.cut)
	}
	g.reopen()
	p.group = g
}

func (p *pipeline) take(ctx context.Context) error {
	select {
	case p.group = <-p.send.empty:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Idle implements Emitter. What is complete goes out; then the position moves forward
// under both keys of the state, so that exactly it can be confirmed: at most once in
// idlePause, unless the server asks.
func (p *pipeline) Idle(ctx context.Context, pos Position, asked bool) error {
	if p.open {
		return fmt.Errorf("idle at %d inside a transaction", pos.Offset)
	}
	p.cfg.Monitor.hear(time.Now().UnixMilli())
	if err := p.prog.idle(pos); err != nil {
		return err
	}
	if err := p.engine.step(ctx, stepAll); err != nil {
		return err
	}
	if p.group.commits == 0 && p.send.free() {
		p.cfg.Monitor.caughtUp()
	}
	if p.exact && p.lastCut == p.prog.base || len(p.prog.ahead) > 0 {
		return nil
	}
	if !asked && (!p.send.free() || time.Since(p.idleAt) < idlePause) {
		return nil
	}
	p.idleAt = time.Now()
	if p.group.commits > 0 || p.lastCut != p.prog.base {
		if err := p.push(ctx, p.cutGroup()); err != nil {
			return err
		}
	}
	g := p.cutGroup()
	g.exact, p.exact = true, true
	return p.push(ctx, g)
}

// Wait implements Emitter: whole transactions go to the sender's channel, where Resume may
// take them back if it has not begun to send them. In the middle of a transaction the
// group stays, unless the Kafka transaction has been open for too long.
//
// It does not block: only this goroutine fills the channel, and it was empty.
func (p *pipeline) Wait() {
	if p.group == nil || len(p.send.queue) > 0 {
		return
	}
	if p.open && !p.overdue() || !p.open && p.group.commits == 0 {
		return
	}
	g := p.cutGroup()
	g.close()
	p.send.queue <- g
	p.group, p.parked = nil, !p.open
}

// Resume implements Emitter.
//
// It does not block: of the four groups one is being sent at most and one is in the
// channel, so that one of the others is empty.
func (p *pipeline) Resume() {
	if p.group != nil {
		return
	}
	if p.parked {
		select {
		case g := <-p.send.queue:
			p.reopen(g)
			return
		default:
		}
	}
	p.group = <-p.send.empty
}

// Table implements Emitter.
func (p *pipeline) Table(ctx context.Context, v *TableVersion) (*Route, error) {
	if !p.open {
		return nil, fmt.Errorf("table %s.%s outside a transaction", v.Namespace, v.Name)
	}
	place := p.tx
	place.Row++
	read := p.flags&stream.FlagBackfill != 0
	if p.unended > 0 {
		// A registry that is away must not keep a Kafka transaction open: what waits too
		// long fails, the run ends, and the next one meets the table with less in flight.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, p.cfg.TransactionTimeout/4, errTableWait)
		defer cancel()
	}
	name := schemas.TopicName(p.cfg.Naming.Prefix, v.Namespace, v.Name)
	topic, known := p.routes.topics[name]
	if known && !p.routes.of(topic, v) {
		return nil, stopf("leave one of them out, or capture them under different topic prefixes",
			"tables %s and %q.%q would share the topic %s", topic.collection, v.Namespace, v.Name, name)
	}
	t, fresh, err := p.routes.version(ctx, v, place, p.prog.horizon)
	if err != nil {
		return nil, err
	}
	var records []stateRecord
	if !known {
		topic, records, err = p.newTopic(ctx, name, topicState{From: place, Partitions: p.cfg.Topics.Partitions, Collection: v.Namespace + "." + v.Name})
		if err != nil {
			return nil, err
		}
	}
	if fresh {
		records = append(records, p.routes.store(v, t))
		p.cfg.Monitor.schemaChange()
		p.log.Info("table version", "table", v.Namespace+"."+v.Name, "columns", len(t.Table.Columns), "topic", name, "value_schema", t.ValueID)
	}
	if err := p.save(ctx, append(records, p.routes.settledRecord()...)); err != nil {
		return nil, err
	}
	if topic.tracker != nil && !read {
		topic.tracker.Version(v.Log)
	}
	return &Route{Table: t.Table, Topic: name, KeyID: t.KeyID, ValueID: t.ValueID, topic: topic}, nil
}

var errTableWait = fmt.Errorf("waited too long for a table's schema or topic with a transaction open")
