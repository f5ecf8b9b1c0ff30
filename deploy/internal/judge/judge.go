package judge

import (
	"cmp"
	"fmt"
	"slices"
)

// Verdict counts what is wrong. All of Lost … Wrong are 0 where the promise is kept.
type Verdict struct {
	Changes   int // acknowledged changes that were looked for
	Records   int // records that were looked at
	Lost      int // acknowledged changes of which a record is missing
	Repeated  int // records that are there twice
	Gaps      int // places in a partition where n does not count on by one
	Reordered int // records before which a later one stands, in a partition or for a key
	Torn      int // source transactions that are there in part, or whose END does not fit
	Wrong     int // records that nobody committed, or whose content is not the row's
	ReadVerdict

	Details []string // the first findings of each kind, in words
	shown   map[string]int
}

// detailsPerKind bounds Details.
const detailsPerKind = 5

// Good says that nothing was found.
func (v *Verdict) Good() bool {
	return v.Lost+v.Repeated+v.Gaps+v.Reordered+v.Torn+v.Wrong == 0 && v.ReadVerdict.good()
}

func (v *Verdict) note(kind string, count *int, format string, args ...any) {
	*count++
	if v.shown[kind]++; v.shown[kind] <= detailsPerKind {
		v.Details = append(v.Details, kind+": "+fmt.Sprintf(format, args...))
	}
}

// trial is one judgement under way.
type trial struct {
	Verdict
	transactions map[uint64]*transaction // by id
	ids          map[place]uint64        // transaction ids by commit
	commits      map[place]*commit
	keys         map[rowKey]*keyState

	reads    *Reads      // nil: no rows are read, and what keys were before is not known
	backfill []*Record   // of rows that were read, with their END records
	again    map[int]int // rows that were read again, by run
}

type transaction struct {
	outcome Outcome
	want    map[wanted]int
	got     map[wanted]int
}

// commit is what was found of one source transaction.
type commit struct {
	events   int64
	byTopic  map[string]int64
	lastRow  map[tp]uint64
	rows     int
	ends     int
	id       uint64 // by its END record
	counts   End
	parts    []Part
	firstSee *Record
}

type tp struct {
	topic     string
	partition int32
}

type rowKey struct{ topic, key string }

// keyState follows one key's records, in the order of its partition.
type keyState struct {
	partition int32 // -1: not known yet
	ver       int64
	last      byte // operation of the last record; 0: none yet
	changed   bool // by the log
	content   string
	note      uint64
}

func (s *keyState) dead() bool { return s.last == Tombstone || s.last == 0 }

// Judge compares transactions with records. It sorts records by topic, partition and
// offset. reads is nil if no rows are read beside the log.
func Judge(transactions []Transaction, records []*Record, reads *Reads) *Verdict {
	t := &trial{transactions: map[uint64]*transaction{}, ids: map[place]uint64{}, commits: map[place]*commit{}, keys: map[rowKey]*keyState{},
		reads: reads, again: map[int]int{}}
	t.shown = map[string]int{}
	t.expect(transactions)
	if reads != nil {
		for i := range reads.Initial {
			r := &reads.Initial[i]
			t.keys[rowKey{r.Topic, r.Key}] = &keyState{partition: -1, ver: r.Ver, last: Read, content: r.Content, note: r.Note}
		}
	}
	slices.SortStableFunc(records, func(a, b *Record) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	t.Records = len(records)
	t.learnIDs(records)
	for from := 0; from < len(records); {
		to := from + 1
		for to < len(records) && records[to].Topic == records[from].Topic && records[to].Partition == records[from].Partition {
			to++
		}
		t.partition(records[from:to])
		from = to
	}
	t.weigh(transactions)
	t.ends()
	if reads != nil {
		t.chunks()
	}
	return &t.Verdict
}

func (t *trial) expect(transactions []Transaction) {
	for i := range transactions {
		tx := &transactions[i]
		want := map[wanted]int{}
		for j := range tx.Changes {
			for _, w := range tx.Changes[j].records() {
				want[w]++
			}
		}
		t.transactions[tx.ID] = &transaction{outcome: tx.Outcome, want: want, got: map[wanted]int{}}
	}
}

// learnIDs finds out which transaction stands at which place of the log, from the records
// that say so; tombstones do not.
func (t *trial) learnIDs(records []*Record) {
	for _, r := range records {
		if r.Foreign || r.XID == 0 {
			continue
		}
		at := r.Mark.place().commit()
		if id, known := t.ids[at]; known && id != r.XID {
			t.note("wrong", &t.Wrong, "%s is of transaction %d, another record of the same commit of %d", r.where(), r.XID, id)
			continue
		}
		t.ids[at] = r.XID
	}
}

func (r *Record) where() string {
	return fmt.Sprintf("%s/%d offset %d (epoch %d, order %d, row %d, n %d)", r.Topic, r.Partition, r.Offset, r.Mark.Epoch, r.Mark.Order, r.Mark.Row, r.Mark.N)
}

// partition judges the records of one partition, in offset order.
func (t *trial) partition(records []*Record) {
	var n uint64
	var last place
	seen := map[place]bool{}
	for _, r := range records {
		if r.Foreign {
			t.note("wrong", &t.Wrong, "%s: %s", r.where(), r.Fault)
			continue
		}
		if r.Mark.N != n+1 {
			t.note("gap", &t.Gaps, "%s follows n %d", r.where(), n)
		}
		n = r.Mark.N
		p := r.Mark.place()
		switch {
		case seen[p]:
			t.note("repeated", &t.Repeated, "%s was there before", r.where())
			continue
		case p.less(last):
			t.note("reordered", &t.Reordered, "%s stands after order %d, row %d", r.where(), last.order, last.row)
		default:
			last = p
		}
		seen[p] = true
		t.record(r)
	}
}

// record judges a record by its content.
func (t *trial) record(r *Record) {
	if r.Fault != "" {
		t.note("wrong", &t.Wrong, "%s: %s", r.where(), r.Fault)
	}
	if t.reads != nil && (r.Mark.Backfill || r.Op == Read) {
		t.read(r)
		return
	}
	at := r.Mark.place().commit()
	c := t.commits[at]
	if c == nil {
		c = &commit{byTopic: map[string]int64{}, lastRow: map[tp]uint64{}, firstSee: r}
		t.commits[at] = c
	}
	if r.Mark.IsEnd {
		c.ends++
		c.id, c.counts, c.parts = r.XID, r.Counts, r.Mark.Parts
		return
	}
	c.rows++
	if r.Op != Tombstone {
		c.events++
		c.byTopic[r.Topic]++
	}
	c.lastRow[tp{r.Topic, r.Partition}] = r.Mark.Row
	if !t.match(r, at) {
		return
	}
	if r.Key != "" {
		t.follow(r)
	}
}

// match finds the change that r is a record of; false: there is none left.
func (t *trial) match(r *Record, at place) bool {
	tx := t.transactions[t.ids[at]]
	if tx == nil || tx.outcome == Failed {
		t.note("wrong", &t.Wrong, "%s: %s was not committed by any writer (transaction %d)", r.where(), r.wanted(), t.ids[at])
		return false
	}
	w := r.wanted()
	tx.got[w]++
	switch want := tx.want[w]; {
	case want == 0:
		t.note("wrong", &t.Wrong, "%s: %s is not of transaction %d", r.where(), w, t.ids[at])
		return false
	case tx.got[w] > want:
		t.note("repeated", &t.Repeated, "%s: %s of transaction %d for the %d. time", r.where(), w, t.ids[at], tx.got[w])
		return false
	}
	return true
}

func (r *Record) wanted() wanted { return wanted{r.Topic, r.Op, r.Key, r.Ver} }

// state is what is known of r's key.
func (t *trial) state(r *Record) *keyState {
	k := rowKey{r.Topic, r.Key}
	s := t.keys[k]
	if s == nil {
		s = &keyState{partition: -1}
		if t.reads != nil {
			s.last = Tombstone // the rows that there were are known
		}
		t.keys[k] = s
	}
	if s.partition < 0 {
		s.partition = r.Partition
	}
	return s
}

// follow judges a record by the one before of the same key.
func (t *trial) follow(r *Record) {
	s := t.state(r)
	live := !s.dead() && s.last != Delete || s.last == 0
	ok := r.Partition == s.partition
	switch r.Op {
	case Create:
		ok = ok && s.dead() && r.Ver > s.ver
	case Update:
		ok = ok && live && r.Ver > s.ver
	case Delete:
		ok = ok && live
	case Tombstone:
		ok = ok && s.last == Delete
	}
	if !ok {
		t.note("reordered", &t.Reordered, "%s: %s in partition %d after %s of version %d in partition %d", r.where(), r.wanted(), r.Partition, opName(s.last), s.ver, s.partition)
	}
	s.changed = true
	s.hold(r)
}

// weigh counts the changes that are not there.
func (t *trial) weigh(transactions []Transaction) {
	for i := range transactions {
		tx := &transactions[i]
		found := t.transactions[tx.ID]
		if tx.Outcome == Failed || tx.Outcome == Unknown && len(found.got) == 0 {
			continue
		}
		t.Changes += len(tx.Changes)
		left := map[wanted]int{}
		for w, n := range found.want {
			left[w] = n - found.got[w]
		}
		for j := range tx.Changes {
			t.missing(tx, &tx.Changes[j], left)
		}
	}
}

// missing counts c as lost if one of its records is; left tells how many are.
func (t *trial) missing(tx *Transaction, c *Change, left map[wanted]int) {
	lost := false
	for _, w := range c.records() {
		if left[w] > 0 {
			left[w]--
			if !lost {
				t.note("lost", &t.Lost, "%s, transaction %d, is nowhere", w, tx.ID)
			}
			lost = true
		}
	}
}

// ends compares the END records with what they close.
func (t *trial) ends() {
	for at, c := range t.commits {
		if why := c.torn(); why != "" {
			t.note("torn", &t.Torn, "order %d (transaction %d, first seen at %s): %s", at.order, t.ids[at], c.firstSee.where(), why)
		}
	}
}

// torn says what does not fit between a commit's END record and its rows, if anything.
func (c *commit) torn() string {
	switch {
	case c.ends == 0:
		return "no END record"
	case c.ends > 1:
		return fmt.Sprintf("%d END records", c.ends)
	case c.counts.Events != c.events:
		return fmt.Sprintf("END counts %d events, there are %d", c.counts.Events, c.events)
	}
	for topic, n := range c.byTopic {
		if c.counts.Collections[topic] != n {
			return fmt.Sprintf("END counts %d events of %s, there are %d", c.counts.Collections[topic], topic, n)
		}
	}
	if len(c.counts.Collections) != len(c.byTopic) {
		return fmt.Sprintf("END counts %d topics, there are %d", len(c.counts.Collections), len(c.byTopic))
	}
	return c.partsFit()
}

func (c *commit) partsFit() string {
	for _, p := range c.parts {
		if row, there := c.lastRow[tp{p.Topic, p.Partition}]; !there || row != p.Row {
			return fmt.Sprintf("END says that %s/%d ends with row %d, it ends with %d", p.Topic, p.Partition, p.Row, row)
		}
	}
	if len(c.parts) != len(c.lastRow) {
		return fmt.Sprintf("END names %d partitions, there are %d", len(c.parts), len(c.lastRow))
	}
	return ""
}
