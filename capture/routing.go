package capture

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/tailrace/tailrace/capture/backfill"
	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/stream"
)

// frameSize is the length of what stands before the Avro body of a key or value.
const frameSize = schemas.FrameSize

// topicRoute is one topic that the capture writes to, with its partitions.
type topicRoute struct {
	name       string
	collection string // the table, `schema.table`; empty for END records
	parts      []*partition

	txSeq uint64 // the last source transaction with changes for it,
	count int64  // and their number

	tracker *backfill.Tracker // notes its changes for chunks of the table; nil: none are read
	copies  []*copyRoute
}

// partition chooses where the record of a key goes. A record without a key goes to
// partition 0, so that the records of a table without one keep their order.
func (t *topicRoute) partition(key []byte) *partition {
	if len(key) < frameSize || len(t.parts) == 1 {
		return t.parts[0]
	}
	return t.parts[stream.PartitionOf(key[frameSize:], int32(len(t.parts)))]
}

// routes holds what the state says of topics and table versions, and makes more of it.
type routes struct {
	cfg    *Config
	log    *slog.Logger
	topics map[string]*topicRoute
	copies map[string][]*copyRoute // by the topic whose changes are copied
	tables map[string][]tableState
	saved  routingState

	accepted acceptances // schemas that a person has accepted
	settled  bool        // accepted has changed since it was saved

	start stream.Place // before which no replay begins
}

func newRoutes(cfg *Config, s *state, p *progress) *routes {
	r := &routes{cfg: cfg, log: cfg.Log, topics: make(map[string]*topicRoute), copies: make(map[string][]*copyRoute), tables: s.tables,
		saved: s.routing, accepted: s.accepted, start: stream.Place{Epoch: p.epoch, File: p.baseOrder.File, Pos: p.baseOrder.Pos}}
	for name, t := range s.routing.Topics {
		if !s.closed(&t) {
			r.topics[name] = r.route(name, t, p)
		}
	}
	for name, t := range s.routing.Topics {
		if t.Of != "" && r.topics[name] != nil {
			r.copyTo(t.Of, &copyRoute{topic: r.topics[name], from: t.From, until: t.Until})
		}
	}
	return r
}

func (r *routes) route(name string, t topicState, p *progress) *topicRoute {
	topic := &topicRoute{name: name, collection: t.Collection, parts: make([]*partition, t.Partitions)}
	for i := range topic.parts {
		topic.parts[i] = p.parts[PartitionID{name, int32(i)}]
	}
	return topic
}

// held returns the stored version that held at place; ok is false if there is none.
func held(versions []tableState, place stream.Place) (v tableState, ok bool) {
	for _, t := range versions {
		if t.From.Compare(place) <= 0 {
			v, ok = t, true
		}
	}
	return v, ok
}

// version returns what v is written as from place on, and whether that has to be stored
// first. A replay gets what held then; what comes after everything that was ever written
// is described anew, so that a changed catalog is seen.
func (r *routes) version(ctx context.Context, v *TableVersion, place, horizon stream.Place) (t tableState, fresh bool, err error) {
	versions := r.tables[tableKey(v.Namespace, v.Name, v.Hash)]
	if place.Compare(horizon) <= 0 {
		if was, ok := r.logged(v, place); ok && was.Keys != v.Keys {
			return tableState{}, false, epochf("start with the masks as they were, stop when it runs, and change them then; or have the tables read anew",
				"the mask of a key of table %s.%s was changed while changes were not yet written for good: some have the old key", v.Namespace, v.Name)
		}
		if old, ok := held(versions, place); ok {
			return old, false, nil
		}
	}
	table, err := v.Describe(ctx)
	if err != nil {
		return tableState{}, false, fmt.Errorf("describe table %s.%s: %w", v.Namespace, v.Name, err)
	}
	table = r.keepNullable(table)
	if len(versions) > 0 {
		if last := versions[len(versions)-1]; sameTable(last.Table, table) {
			was, ok := r.logged(v, place)
			again := ok && was.Keys != v.Keys // another choice held in between
			if again {
				last.From = place
			}
			return last, again, nil
		}
	}
	keyID, valueID, err := r.register(ctx, table)
	if err != nil {
		return tableState{}, false, fmt.Errorf("register table %s.%s: %w", v.Namespace, v.Name, err)
	}
	return tableState{From: place, Table: table, KeyID: keyID, ValueID: valueID, Log: v.Log, Keys: v.Keys}, true, nil
}

// logged returns the newest version at place of what the log describes as v, however its
// columns were chosen; ok is false if there is none.
func (r *routes) logged(v *TableVersion, place stream.Place) (newest tableState, ok bool) {
	prefix := tableKey(v.Namespace, v.Name, "")
	for key, versions := range r.tables {
		if !strings.HasPrefix(key, prefix) || strings.Contains(key[len(prefix):], "/") {
			continue
		}
		for _, t := range versions {
			if t.Log == v.Log && t.From.Compare(place) <= 0 && (!ok || newest.From.Compare(t.From) < 0) {
				newest, ok = t, true
			}
		}
	}
	return newest, ok
}

// keepNullable leaves columns nullable that were so in the table's last version. A SET NOT
// NULL says nothing of the rows that the topic holds already: a schema that says it could
// not read them, and a registry would refuse it.
func (r *routes) keepNullable(t *schemas.Table) *schemas.Table {
	was := r.last(t.Namespace, t.Name)
	if was == nil {
		return t
	}
	nullable := make(map[string]schemas.Kind)
	for _, c := range was.Columns {
		if c.Nullable {
			nullable[c.Name] = c.Type.Kind
		}
	}
	kept := *t
	kept.Columns = slices.Clone(t.Columns)
	for i, c := range kept.Columns {
		if kind, ok := nullable[c.Name]; ok && kind == c.Type.Kind && !slices.Contains(t.Key, i) {
			kept.Columns[i].Nullable = true
		}
	}
	return &kept
}

// last returns the newest version of a table, whatever the log said of it; nil if none.
func (r *routes) last(namespace, name string) *schemas.Table {
	var newest tableState
	prefix := tableKey(namespace, name, "")
	for key, versions := range r.tables {
		if !strings.HasPrefix(key, prefix) || strings.Contains(key[len(prefix):], "/") {
			continue
		}
		if v := versions[len(versions)-1]; newest.Table == nil || newest.From.Compare(v.From) < 0 {
			newest = v
		}
	}
	return newest.Table
}

// of says whether a topic is that of v's table. The schema a with a table b.c reads like the
// schema a.b with a table c.
func (r *routes) of(t *topicRoute, v *TableVersion) bool {
	was := r.last(v.Namespace, v.Name)
	return t.collection == v.Namespace+"."+v.Name && (was == nil || was.Namespace == v.Namespace)
}

func sameTable(a, b *schemas.Table) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// register derives the schemas of a table version and registers them, waiting for a
// registry that is away until ctx ends.
func (r *routes) register(ctx context.Context, t *schemas.Table) (keyID, valueID int32, err error) {
	d, err := schemas.Derive(t, r.cfg.Naming)
	if err != nil {
		return 0, 0, stopf("rename or leave out the column, or choose another name adjustment", "derive schema: %w", err)
	}
	if d.KeySchema != "" {
		if keyID, err = r.registerSchema(ctx, d.Topic+"-key", d.KeySchema); err != nil {
			return 0, 0, err
		}
	}
	valueID, err = r.registerSchema(ctx, d.Topic+"-value", d.ValueSchema)
	return keyID, valueID, err
}

func (r *routes) registerSchema(ctx context.Context, subject, schema string) (id int32, err error) {
	err = retry(ctx, func(err error) {
		r.log.Warn("waiting for the schema registry", "subject", subject, "error", err)
	}, func() error {
		id, err = r.cfg.Registry.Register(ctx, subject, schema)
		if a, ok := r.accepted[subject]; ok && (err == nil || registry.Incompatible(err)) {
			id, err = r.accept(ctx, subject, schema, a, id, err)
		}
		return err
	})
	if registry.Incompatible(err) {
		err = &incompatible{err, subject}
	}
	return id, err
}

// store adds a version to a table's record and returns the record. Versions that no replay
// can ask for any more are left out: those superseded before the run's start. What was read
// since then may not be durable yet.
func (r *routes) store(v *TableVersion, t tableState) stateRecord {
	key := tableKey(v.Namespace, v.Name, v.Hash)
	versions := r.tables[key]
	for len(versions) > 1 && versions[1].From.Compare(r.start) <= 0 {
		versions = versions[1:]
	}
	versions = append(slices.Clone(versions), t)
	r.tables[key] = versions
	return stateRecord{key: key, value: mustJSON(versions)}
}

// ensure makes the topic of a new route, or checks the one that is there, and returns its
// number of partitions.
func (r *routes) ensure(ctx context.Context, name string, partitions int32) (int32, error) {
	t := r.cfg.Topics
	spec := stream.TopicSpec{Name: name, Partitions: partitions, Replication: t.Replication, Config: t.Config, Create: t.Create}
	var info stream.TopicInfo
	err := retry(ctx, func(err error) {
		r.log.Warn("waiting for the broker to make a topic", "topic", name, "error", err)
	}, func() (err error) {
		info, err = r.cfg.Client.EnsureTopic(ctx, spec)
		return err
	})
	return info.Partitions, err
}

// stateRecord is one record for the state topic.
type stateRecord struct {
	key   string
	value []byte
}

// mustJSON encodes our own state records, which hold nothing that JSON cannot.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode state record: %v", err))
	}
	return b
}
