package judge

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"testing"
)

const readTopic = "x.a"

// readHistory is a history with a table of sixty rows, of which nobody changes forty, and two
// backfills of it, in chunks of ten keys; the capture is killed after the third chunk.
type readHistory struct {
	*history
	reads Reads
	rows  map[string]*Row
	order uint64
	row   uint64 // the last of order
}

func goodReads(seed uint64) *readHistory {
	h := &readHistory{history: good(seed), rows: map[string]*Row{}, order: 500}
	h.transactions, h.records, h.n, h.offset = nil, nil, map[tp]uint64{}, map[tp]uint64{}
	h.reads = Reads{Starts: []int64{1000, 1000_000}, Done: map[string]string{"one": readTopic, "two": readTopic}, Again: 10, Tears: true}
	for i := range 60 {
		r := Row{Topic: readTopic, Key: fmt.Sprintf("%02d", i), Ver: 1, Content: fmt.Sprint(i, "/1"), Note: uint64(100 + i)}
		h.reads.Initial = append(h.reads.Initial, r)
		h.rows[r.Key] = &r
	}
	now := int64(1500)
	for _, id := range []string{"one", "two"} {
		for chunk := range 6 {
			h.commit()
			h.chunk(id, chunk, now)
			now++
			if id == "one" && chunk == 2 {
				now = 1000_500
				h.chunk(id, chunk, now) // once more
			}
		}
	}
	for _, r := range h.rows {
		h.reads.Final = append(h.reads.Final, *r)
	}
	return h
}

// commit changes a row or two.
func (h *readHistory) commit() {
	h.order += 10
	h.row = 0
	tx := Transaction{ID: h.order, Outcome: OK}
	for range 1 + h.rng.IntN(2) {
		key := fmt.Sprintf("%02d", 3*h.rng.IntN(20))
		if row := h.rows[key]; row != nil && h.rng.IntN(4) == 0 {
			delete(h.rows, key)
			h.vers[rowKey{"x.a", key}] = row.Ver + 1
			tx.Changes = append(tx.Changes, Change{Topic: readTopic, Op: "delete", Key: key, Ver: row.Ver + 1})
		} else if row != nil {
			row.Ver++
			row.Content = fmt.Sprint(key, "/", row.Ver)
			tx.Changes = append(tx.Changes, Change{Topic: readTopic, Op: "update", Key: key, Ver: row.Ver})
		} else {
			row := &Row{Topic: readTopic, Key: key, Ver: h.vers[rowKey{"x.a", key}] + 1, Note: 7}
			row.Content = fmt.Sprint(key, "/", row.Ver)
			h.rows[key] = row
			tx.Changes = append(tx.Changes, Change{Topic: readTopic, Op: "insert", Key: key, Ver: row.Ver})
		}
	}
	from := len(h.records)
	h.write(&tx, h.order)
	for _, r := range h.records[from:] {
		h.row = max(h.row, r.Mark.Row)
		r.Content = fmt.Sprint(r.Key, "/", r.Ver)
		if r.Note = NoteUnavailable; r.Op == Create {
			r.Note = 7
		}
	}
	h.transactions = append(h.transactions, tx)
}

// chunk reads ten keys.
func (h *readHistory) chunk(id string, n int, now int64) {
	end := Record{Backfill: id, From: h.row, Time: now, Counts: End{Collections: map[string]int64{}}}
	last := map[tp]uint64{}
	for i := 10 * n; i < 10*n+10; i++ {
		row := h.rows[fmt.Sprintf("%02d", i)]
		if row == nil {
			continue
		}
		hash := fnv.New32a()
		hash.Write([]byte(row.Key))
		at := tp{readTopic, int32(hash.Sum32() % 4)}
		h.row++
		last[at] = h.row
		end.Counts.Events++
		end.Counts.Collections[readTopic]++
		h.append(at, &Record{Op: Read, Key: row.Key, Ver: row.Ver, Time: now, Content: row.Content, Note: row.Note}, Mark{Epoch: 1, Order: h.order, Row: h.row, Backfill: true})
	}
	h.row++
	m := Mark{Epoch: 1, Order: h.order, Row: h.row, IsEnd: true, Backfill: true}
	for at, row := range last {
		m.Parts = append(m.Parts, Part{at.topic, at.partition, row})
	}
	h.append(tp{ends, 0}, &end, m)
}

func isRead(r *Record) bool { return r.Mark.Backfill && !r.Mark.IsEnd }

// still is a row that nobody changes.
func still(r *Record) bool { return isRead(r) && (r.Key[0]-'0'+r.Key[1]-'0')%3 != 0 }

func (h *readHistory) drop(i int) {
	h.records = slices.Delete(h.records, i, i+1)
	h.renumber()
}

func TestGoodReads(t *testing.T) {
	for seed := range uint64(50) {
		h := goodReads(seed)
		v := Judge(h.transactions, h.records, &h.reads)
		if !v.Good() || v.Chunks != 13 || v.Backfills != 2 || v.Again == 0 || v.AgainMost > 10 || v.TornChunks > 0 {
			t.Fatalf("seed %d: %+v", seed, v)
		}
		if torn := Cut(h.records); len(torn) > 0 {
			t.Fatalf("seed %d: %q", seed, torn)
		}
	}
}

// Every fault of rows that were read must be found, and under its name.
func TestFaultsOfReadsAreFound(t *testing.T) {
	for _, c := range []struct {
		name, finds string
		damage      func(h *readHistory)
	}{
		{"an old version", "stale", func(h *readHistory) {
			h.records[h.pick(func(r *Record) bool { return isRead(r) && r.Ver > 1 })].Ver--
		}},
		{"a version that comes later", "reordered", func(h *readHistory) { h.records[h.pick(isRead)].Ver++ }},
		{"a row that is gone", "stale", func(h *readHistory) {
			r := *h.records[h.pick(isRead)]
			h.transactions = append(h.transactions, Transaction{ID: 9, Outcome: OK, Changes: []Change{{Topic: readTopic, Op: "delete", Key: r.Key, Ver: r.Ver + 1}}})
			h.write(&h.transactions[len(h.transactions)-1], h.order+10)
			h.append(tp{r.Topic, r.Partition}, &r, Mark{Epoch: 1, Order: h.order + 10, Row: 100, Backfill: true})
		}},
		{"a row that never was", "stale", func(h *readHistory) { h.records[h.pick(isRead)].Key = "99" }},
		{"a row that is in no chunk", "unread", func(h *readHistory) {
			for i := range h.records {
				if r := h.records[len(h.records)-1-i]; still(r) && r.Key > "30" {
					h.drop(len(h.records) - 1 - i)
					return
				}
			}
		}},
		{"a whole backfill is missing", "unread", func(h *readHistory) { h.reads.Done["three"] = readTopic }},
		{"one run reads a chunk twice", "too many", func(h *readHistory) { h.chunk("two", 4, 1000_600); h.chunk("two", 4, 1000_601) }},
		{"more is read again than was in flight", "too many", func(h *readHistory) {
			h.reads.Starts = append(h.reads.Starts, 2000_000)
			for n := range 3 {
				h.chunk("two", n, 2000_001)
			}
		}},
		{"the database has another row", "different", func(h *readHistory) { h.reads.Final[3].Content += "x" }},
		{"the database has another note", "different", func(h *readHistory) { h.reads.Final[3].Note += 1000 }},
		{"the database has one row more", "different", func(h *readHistory) {
			h.reads.Final = append(h.reads.Final, Row{Topic: readTopic, Key: "98"})
		}},
		{"the database has one row less", "different", func(h *readHistory) { h.reads.Final = h.reads.Final[1:] }},
		{"a change in a backfill", "wrong", func(h *readHistory) { h.records[h.pick(isRead)].Op = Update }},
		{"a row that is not flagged", "wrong", func(h *readHistory) { h.records[h.pick(isRead)].Mark.Backfill = false }},
		{"a key in two partitions", "reordered", func(h *readHistory) {
			i := h.pick(isRead)
			r := h.records[i]
			r.Partition = (r.Partition + 1) % 4
		}},
		{"a chunk without END, with transactions", "torn", func(h *readHistory) {
			h.reads.Tears = false
			h.drop(h.pick(func(r *Record) bool { return r.Mark.Backfill && r.Mark.IsEnd }))
		}},
		{"a row of a chunk is missing, with transactions", "torn", func(h *readHistory) {
			h.reads.Tears = false
			h.drop(h.pick(isRead))
		}},
		{"END names another row, with transactions", "torn", func(h *readHistory) {
			h.reads.Tears = false
			h.records[h.pick(func(r *Record) bool { return r.Mark.Backfill && r.Mark.IsEnd })].Mark.Parts[0].Row++
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := range uint64(5) {
				h := goodReads(seed)
				c.damage(h)
				v := Judge(h.transactions, h.records, &h.reads)
				counts := map[string]int{"reordered": v.Reordered, "torn": v.Torn, "wrong": v.Wrong, "stale": v.Stale, "too many": v.TooMany, "unread": v.Unread, "different": v.Different}
				if counts[c.finds] == 0 || v.Good() {
					t.Errorf("seed %d: %s is 0 in %v\n%s", seed, c.finds, counts, strings.Join(v.Details, "\n"))
				}
			}
		})
	}
}

// A chunk that is there in part is what a broker without transactions leaves of a kill.
func TestTornChunksMayBe(t *testing.T) {
	h := goodReads(1)
	i := slices.IndexFunc(h.records, func(r *Record) bool { return r.Mark.IsEnd && r.Mark.Backfill && r.Time == 1502 })
	h.drop(i)
	v := Judge(h.transactions, h.records, &h.reads)
	if !v.Good() || v.TornChunks != 1 || v.Chunks != 12 {
		t.Errorf("%+v", v)
	}
}

// A cut through a chunk must be seen, but for one before its first row: nothing of the rest
// tells that there was one.
func TestCutFindsTornChunks(t *testing.T) {
	h := goodReads(2)
	end := h.records[len(h.records)-1]
	from := slices.IndexFunc(h.records, func(r *Record) bool { return r.Mark.Order == end.Mark.Order && r.Mark.Row == end.From+1 })
	for i := from + 1; i < len(h.records); i++ {
		if torn := Cut(slices.Delete(slices.Clone(h.records), i, i+1)); len(torn) == 0 {
			t.Errorf("without record %d of %d nothing is found", i-from, len(h.records)-from)
		}
	}
}
