package judge

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

const ends = "x.transaction"

// history makes transactions and the topics that they must become, partition by partition.
type history struct {
	rng          *rand.Rand
	transactions []Transaction
	records      []*Record
	n, offset    map[tp]uint64
	vers         map[rowKey]int64
	live         map[rowKey]bool
}

// good is a history without fault: 300 transactions over three topics of four partitions,
// of which some failed and some are unknown.
func good(seed uint64) *history {
	h := &history{rng: rand.New(rand.NewPCG(seed, 1)), n: map[tp]uint64{}, offset: map[tp]uint64{}, vers: map[rowKey]int64{}, live: map[rowKey]bool{}}
	for i := range 300 {
		tx := Transaction{ID: uint64(700 + i), Outcome: OK}
		switch h.rng.IntN(20) {
		case 0:
			tx.Outcome = Failed
			tx.Changes = []Change{{Topic: "x.a", Op: "insert", Key: "never", Ver: 1}}
		case 1:
			tx.Outcome = Unknown
			tx.Changes = []Change{{Topic: "x.a", Op: "insert", Key: "perhaps", Ver: 1}}
		default:
			for range 1 + h.rng.IntN(6) {
				tx.Changes = append(tx.Changes, h.change())
			}
			h.write(&tx, uint64(1000+10*i))
		}
		h.transactions = append(h.transactions, tx)
	}
	return h
}

// change draws a change that is possible now.
func (h *history) change() Change {
	topic := []string{"x.a", "x.b", "x.journal"}[h.rng.IntN(3)]
	if topic == "x.journal" {
		h.vers[rowKey{topic, ""}]++
		return Change{Topic: topic, Op: "insert", Ver: h.vers[rowKey{topic, ""}]}
	}
	k := rowKey{topic, fmt.Sprint(h.rng.IntN(20))}
	h.vers[k]++
	c := Change{Topic: topic, Key: k.key, Ver: h.vers[k], Op: "insert"}
	if !h.live[k] {
		h.live[k] = true
		return c
	}
	c.Op = []string{"update", "delete", "rekey"}[h.rng.IntN(3)]
	if c.Op == "update" {
		return c
	}
	h.live[k] = false
	for i := range 20 {
		to := rowKey{topic, fmt.Sprint(i)}
		if c.Op == "rekey" && !h.live[to] && to != k {
			h.live[to] = true
			h.vers[to]++
			c.NewKey, c.NewVer = to.key, h.vers[to]
			return c
		}
	}
	c.Op = "delete"
	return c
}

// write appends the transaction's records, as a right capture would.
func (h *history) write(tx *Transaction, order uint64) {
	end := End{Collections: map[string]int64{}}
	last := map[tp]uint64{}
	row := uint64(0)
	for i := range tx.Changes {
		for _, w := range tx.Changes[i].records() {
			row++
			hash := fnv.New32a()
			hash.Write([]byte(w.key))
			at := tp{w.topic, int32(hash.Sum32() % 4)}
			r := &Record{Op: w.op, Key: w.key, Ver: w.ver, XID: tx.ID}
			if w.op == Tombstone {
				r.XID = 0
			} else {
				end.Events++
				end.Collections[w.topic]++
			}
			h.append(at, r, Mark{Epoch: 1, Order: order, Row: row})
			last[at] = row
		}
	}
	m := Mark{Epoch: 1, Order: order, Row: row + 1, IsEnd: true}
	for at, row := range last {
		m.Parts = append(m.Parts, Part{at.topic, at.partition, row})
	}
	h.append(tp{ends, 0}, &Record{XID: tx.ID, Counts: end}, m)
}

func (h *history) append(at tp, r *Record, m Mark) {
	h.n[at]++
	m.N = h.n[at]
	r.Topic, r.Partition, r.Offset, r.Mark = at.topic, at.partition, int64(h.offset[at]), m
	h.offset[at]++
	h.records = append(h.records, r)
}

// pick is the index of a record that fits, from the middle of the history on.
func (h *history) pick(fits func(r *Record) bool) int {
	for i := len(h.records) / 2; i < len(h.records); i++ {
		if fits(h.records[i]) {
			return i
		}
	}
	panic("the history has no such record")
}

// renumber counts n and the offsets of every partition anew: a capture that lost or
// repeated a record before it counted.
func (h *history) renumber() {
	n := map[tp]uint64{}
	for _, r := range h.records {
		at := tp{r.Topic, r.Partition}
		r.Offset = int64(n[at])
		n[at]++
		r.Mark.N = n[at]
	}
}

func (h *history) swap(i, j int) {
	a, b := h.records[i], h.records[j]
	a.Offset, b.Offset = b.Offset, a.Offset
	a.Mark.N, b.Mark.N = b.Mark.N, a.Mark.N
	h.records[i], h.records[j] = b, a
}

func data(r *Record) bool { return !r.Mark.IsEnd }

func isOp(op byte) func(*Record) bool {
	return func(r *Record) bool { return data(r) && r.Op == op }
}

func TestGoodHistory(t *testing.T) {
	for seed := range uint64(20) {
		h := good(seed)
		if v := Judge(h.transactions, h.records, nil); !v.Good() || v.Changes < 300 {
			t.Fatalf("seed %d: %+v", seed, v)
		}
		if torn := Cut(h.records); len(torn) > 0 {
			t.Fatalf("seed %d: %q", seed, torn)
		}
	}
}

// The order in which partitions are read must not matter.
func TestOrderOfReadingDoesNotMatter(t *testing.T) {
	h := good(1)
	h.rng.Shuffle(len(h.records), func(i, j int) { h.records[i], h.records[j] = h.records[j], h.records[i] })
	if v := Judge(h.transactions, h.records, nil); !v.Good() {
		t.Fatalf("%+v", v)
	}
}

// Every fault must be found, and under its name.
func TestFaultsAreFound(t *testing.T) {
	for _, c := range []struct {
		name   string
		finds  string // names of counts that must not be 0
		damage func(h *history)
	}{
		{"a record is missing", "lost gaps torn", func(h *history) {
			i := h.pick(isOp(Update))
			h.records = slices.Delete(h.records, i, i+1)
		}},
		{"a record was dropped before it was counted", "lost", func(h *history) {
			i := h.pick(isOp(Create))
			h.records = slices.Delete(h.records, i, i+1)
			h.renumber()
		}},
		{"a tombstone is missing", "lost", func(h *history) {
			i := h.pick(isOp(Tombstone))
			h.records = slices.Delete(h.records, i, i+1)
			h.renumber()
		}},
		{"a whole transaction is missing", "lost", func(h *history) {
			order := h.records[len(h.records)/2].Mark.Order
			h.records = slices.DeleteFunc(h.records, func(r *Record) bool { return r.Mark.Order == order })
			h.renumber()
		}},
		{"the last transaction is missing", "lost", func(h *history) {
			order := h.records[len(h.records)-1].Mark.Order
			h.records = slices.DeleteFunc(h.records, func(r *Record) bool { return r.Mark.Order == order })
		}},
		{"everything is missing", "lost", func(h *history) { h.records = nil }},
		{"a record is there twice", "repeated gaps", func(h *history) {
			r := *h.records[h.pick(data)]
			r.Offset = 1 << 40
			h.records = append(h.records, &r)
		}},
		{"a change was counted twice", "repeated torn", func(h *history) {
			i := h.pick(isOp(Update))
			r := *h.records[i]
			r.Mark.Row += 100
			h.records = slices.Insert(h.records, i+1, &r)
			h.renumber()
		}},
		{"a transaction was replayed", "repeated", func(h *history) {
			order := h.records[len(h.records)/2].Mark.Order
			for _, r := range h.records {
				if r.Mark.Order == order {
					again := *r
					h.append(tp{r.Topic, r.Partition}, &again, again.Mark)
				}
			}
		}},
		{"two records of a partition changed places", "reordered gaps", func(h *history) {
			i := h.pick(data)
			j := i + 1 + h.pickAfter(i, func(r *Record) bool {
				return r.Topic == h.records[i].Topic && r.Partition == h.records[i].Partition
			})
			a, b := h.records[i], h.records[j]
			a.Offset, b.Offset = b.Offset, a.Offset
		}},
		{"two records changed places and were counted so", "reordered", func(h *history) {
			i := h.pick(data)
			j := i + 1 + h.pickAfter(i, func(r *Record) bool {
				return r.Topic == h.records[i].Topic && r.Partition == h.records[i].Partition
			})
			h.swap(i, j)
		}},
		{"two versions of a key changed places", "reordered", func(h *history) {
			i := h.pick(func(r *Record) bool { return isOp(Update)(r) && h.laterOf(r) != nil })
			a := h.records[i]
			b := h.laterOf(a)
			a.Ver, b.Ver, a.XID, b.XID = b.Ver, a.Ver, b.XID, a.XID
			a.Mark.Order, b.Mark.Order, a.Mark.Row, b.Mark.Row = b.Mark.Order, a.Mark.Order, b.Mark.Row, a.Mark.Row
		}},
		{"a key is in two partitions", "reordered", func(h *history) {
			i := h.pick(isOp(Update))
			r := h.records[i]
			h.records = slices.Delete(h.records, i, i+1)
			h.append(tp{r.Topic, (r.Partition + 1) % 4}, r, r.Mark)
			h.renumber()
		}},
		{"n jumps", "gaps", func(h *history) {
			r := h.records[h.pick(data)]
			for _, later := range h.records {
				if later.Topic == r.Topic && later.Partition == r.Partition && later.Offset >= r.Offset {
					later.Mark.N++
				}
			}
		}},
		{"n begins anew", "gaps", func(h *history) {
			r := h.records[h.pick(func(r *Record) bool { return data(r) && r.Mark.N > 3 })]
			n := r.Mark.N - 1
			for _, later := range h.records {
				if later.Topic == r.Topic && later.Partition == r.Partition && later.Offset >= r.Offset {
					later.Mark.N -= n
				}
			}
		}},
		{"an END record is missing", "torn", func(h *history) {
			i := h.pick(func(r *Record) bool { return r.Mark.IsEnd })
			h.records = slices.Delete(h.records, i, i+1)
			h.renumber()
		}},
		{"END counts one event too many", "torn", func(h *history) {
			h.records[h.pick(func(r *Record) bool { return r.Mark.IsEnd })].Counts.Events++
		}},
		{"END counts another topic", "torn", func(h *history) {
			h.records[h.pick(func(r *Record) bool { return r.Mark.IsEnd })].Counts.Collections["x.other"] = 1
		}},
		{"END names another row", "torn", func(h *history) {
			h.records[h.pick(func(r *Record) bool { return r.Mark.IsEnd })].Mark.Parts[0].Row++
		}},
		{"END forgets a partition", "torn", func(h *history) {
			r := h.records[h.pick(func(r *Record) bool { return r.Mark.IsEnd && len(r.Mark.Parts) > 1 })]
			r.Mark.Parts = r.Mark.Parts[1:]
		}},
		{"a rolled back transaction is there", "wrong", func(h *history) {
			i := slices.IndexFunc(h.transactions, func(tx Transaction) bool { return tx.Outcome == Failed })
			h.write(&h.transactions[i], 1<<40)
		}},
		{"a transaction of nobody is there", "wrong", func(h *history) {
			h.write(&Transaction{ID: 5, Changes: []Change{{Topic: "x.a", Op: "update", Key: "1", Ver: 1000}}}, 1<<40)
		}},
		{"half of an unknown transaction is there", "lost", func(h *history) {
			h.transactions = append(h.transactions, Transaction{ID: 9999, Outcome: Unknown, Changes: []Change{
				{Topic: "x.journal", Op: "insert", Ver: 1000}, {Topic: "x.journal", Op: "insert", Ver: 1001}}})
			h.write(&Transaction{ID: 9999, Changes: []Change{{Topic: "x.journal", Op: "insert", Ver: 1000}}}, 1<<40)
		}},
		{"another version of the row", "lost wrong", func(h *history) { h.records[h.pick(isOp(Update))].Ver += 500 }},
		{"another row", "lost wrong", func(h *history) { h.records[h.pick(isOp(Create))].Key = "5x" }},
		{"another operation", "lost wrong", func(h *history) { h.records[h.pick(isOp(Update))].Op = Create }},
		{"content that is not the row's", "wrong", func(h *history) { h.records[h.pick(isOp(Update))].Fault = "body differs" }},
		{"a record without the header", "wrong", func(h *history) { h.records[h.pick(data)].Foreign = true }},
		{"a commit that names two transactions", "wrong", func(h *history) {
			r := h.records[h.pick(func(r *Record) bool { return r.Mark.IsEnd })]
			r.XID++
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := range uint64(5) {
				h := good(seed)
				c.damage(h)
				v := Judge(h.transactions, h.records, nil)
				counts := map[string]int{"lost": v.Lost, "repeated": v.Repeated, "gaps": v.Gaps, "reordered": v.Reordered, "torn": v.Torn, "wrong": v.Wrong}
				for _, name := range strings.Fields(c.finds) {
					if counts[name] == 0 {
						t.Errorf("seed %d: %s is 0 in %v\n%s", seed, name, counts, strings.Join(v.Details, "\n"))
					}
				}
				if v.Good() || len(v.Details) == 0 {
					t.Errorf("seed %d: good %v, %d details", seed, v.Good(), len(v.Details))
				}
			}
		})
	}
}

// pickAfter is how far after i the next record lies that fits.
func (h *history) pickAfter(i int, fits func(*Record) bool) int {
	return slices.IndexFunc(h.records[i+1:], fits)
}

// laterOf is a later update of the same key, in another transaction.
func (h *history) laterOf(r *Record) *Record {
	for _, other := range h.records {
		if other.Topic == r.Topic && other.Key == r.Key && other.Op == Update && other.Mark.Order > r.Mark.Order && other.Offset > r.Offset {
			return other
		}
	}
	return nil
}

// An unknown transaction may be there, if it is there whole.
func TestUnknownMayBeThere(t *testing.T) {
	h := good(3)
	h.transactions = append(h.transactions, Transaction{ID: 9999, Outcome: Unknown, Changes: []Change{{Topic: "x.journal", Op: "insert", Ver: 1000}}})
	h.write(&h.transactions[len(h.transactions)-1], 1<<40)
	if v := Judge(h.transactions, h.records, nil); !v.Good() {
		t.Fatalf("%+v", v)
	}
}

// A cut through a transaction must be seen, wherever it goes.
func TestCutFindsTornTransactions(t *testing.T) {
	for seed := range uint64(20) {
		h := good(seed)
		i := h.pick(func(r *Record) bool { return r.Mark.IsEnd && r.Mark.Row > 2 })
		order := h.records[i].Mark.Order
		var rest, one []*Record
		for _, r := range h.records {
			if r.Mark.Order == order {
				one = append(one, r)
			} else {
				rest = append(rest, r)
			}
		}
		for leave := range one {
			cut := slices.Concat(rest, slices.Delete(slices.Clone(one), leave, leave+1))
			if torn := Cut(cut); len(torn) != 1 {
				t.Fatalf("seed %d without record %d of %d: %q", seed, leave, len(one), torn)
			}
		}
		if torn := Cut(rest); len(torn) != 0 {
			t.Fatalf("seed %d without the whole transaction: %q", seed, torn)
		}
	}
}
