package capture

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/tailrace/tailrace/capture/backfill"
	"github.com/tailrace/tailrace/schemas"
)

func (s *fakeSource) Tables(context.Context) ([]CapturedTable, error) {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	var tables []CapturedTable
	for _, name := range slices.Sorted(maps.Keys(s.log.tables(len(s.log.txs), false))) {
		tables = append(tables, CapturedTable{Namespace: "public", Name: name, Identity: "1", Keyed: !s.log.keyless})
	}
	return tables, nil
}

func (s *fakeSource) Chunker(context.Context) (Chunker, error) { return &fakeChunker{log: s.log}, nil }

func (s *fakeSource) Wake(Position) {
	select {
	case s.log.wake <- struct{}{}:
	default:
	}
}

// fakeChunker reads a fakeLog's tables. Its statements see what is not hidden.
type fakeChunker struct{ log *fakeLog }

func (c *fakeChunker) Close() error { return nil }

func (c *fakeChunker) Running(context.Context) (xids []uint64, err error) {
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	for _, tx := range c.log.txs[c.log.visible():] {
		xids = append(xids, tx.order.Pos)
	}
	return xids, nil
}

// visible returns how many transactions readers see: one that they saw they always see.
func (l *fakeLog) visible() int {
	l.seen = max(l.seen, len(l.txs)-l.hidden)
	return l.seen
}

func (c *fakeChunker) Plan(_ context.Context, t *ChunkTable) (*ChunkPlan, error) {
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	if _, ok := c.log.tables(len(c.log.txs), false)[t.Name]; !ok {
		return nil, stopf("name one that there is", "there is no table %s.%s", t.Namespace, t.Name)
	}
	return &ChunkPlan{Identity: "1", Key: []string{"id"}, Estimate: 50, Ranges: []backfill.Range{
		{After: t.After, To: []string{"16"}}, {After: []string{"16"}, To: []string{"33"}}, {After: []string{"33"}, To: t.To}}}, nil
}

// fakeSeen has the transactions before a place.
type fakeSeen uint64

func (s fakeSeen) Has(c *backfill.Commit) bool { return c.XID < uint64(s) }

func (c *fakeChunker) Read(ctx context.Context, r *ChunkRead, out *backfill.Chunk) (*ChunkVersion, error) {
	if c.log.chunk != nil {
		if err := c.log.chunk(r); err != nil {
			return nil, err
		}
	}
	name := r.Table.Name
	route, err := r.Route(ctx, &TableVersion{Namespace: "public", Name: name, Hash: "h1", Log: "h1",
		Describe: func(context.Context) (*schemas.Table, error) { return fakeTable(name, 0), nil }})
	if err != nil {
		return nil, err
	}
	rows := c.snapshot(name, out)
	src := &fakeSource{w: schemas.NewSourceWriter(schemas.SourceConfig{Version: "test", Connector: "postgresql", Name: "p", Database: "d"})}
	src.w.SetTransaction(schemas.SourceTx{CommitMicros: 1, Snapshot: true})
	out.Whole = true
	for _, row := range rows {
		if !inRange(row.key, r.Range) {
			continue
		}
		if out.Rows.Len() == min(r.Limit, 4) {
			out.Whole = false
			break
		}
		key := schemas.AppendLong(schemas.AppendFrame(nil, route.KeyID), row.key)
		out.Rows.Add(key, src.encode(nil, route, row, 1))
		out.Last = []string{strconv.FormatInt(row.key, 10)}
	}
	return &ChunkVersion{Route: route, Log: "h1", Took: time.Millisecond}, nil
}

// snapshot returns a table's rows as readers see them, in key order.
func (c *fakeChunker) snapshot(table string, out *backfill.Chunk) []fakeRow {
	c.log.mu.Lock()
	n := c.log.visible()
	rows := c.log.tables(n, true)[table]
	seen := uint64(0)
	if n < len(c.log.txs) {
		seen = c.log.txs[n].order.Pos
	} else if n > 0 {
		seen = c.log.txs[n-1].order.Pos + 1
	}
	c.log.mu.Unlock()
	out.Seen, out.End = fakeSeen(seen), backfill.Place{Offset: c.log.end().Offset}
	slices.SortFunc(rows, func(a, b fakeRow) int { return int(a.key - b.key) })
	return rows
}

func inRange(key int64, r backfill.Range) bool {
	bound := func(text []string) int64 {
		n, err := strconv.ParseInt(text[0], 10, 64)
		if err != nil {
			panic(fmt.Sprint("bound ", text))
		}
		return n
	}
	return (r.After == nil || key > bound(r.After)) && (r.To == nil || key <= bound(r.To))
}
