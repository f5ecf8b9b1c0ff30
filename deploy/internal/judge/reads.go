package judge

import (
	"cmp"
	"fmt"
	"slices"
)

// Row is a row of a table with a key. Content is the text of its columns but the note; Note
// is that column's, as Record has it.
type Row struct {
	Topic, Key string
	Ver        int64
	Content    string
	Note       uint64
}

// NoteUnavailable stands for a note that the log does not hold since it was not changed.
const NoteUnavailable = 1

// Reads is what must be known to judge the rows of backfills.
type Reads struct {
	Initial []Row             // what the tables held before the capture was started for the first time
	Final   []Row             // what they hold at the end
	Starts  []int64           // when the capture was started, each time, milliseconds
	Done    map[string]string // backfills that are done, with the topics of their rows
	Again   int               // rows that a run may read again at most: those that were in flight
	Tears   bool              // a kill may leave a part of a chunk in the topics: the broker has no transactions
}

// ReadVerdict counts what was found of backfills.
type ReadVerdict struct {
	Rows       int // records of rows that were read
	Backfills  int // of which there are rows
	Chunks     int // with an END record
	TornChunks int // that are there in part, which the broker may do
	Again      int // rows that were read once more
	AgainMost  int // of them by one run

	Stale     int // rows older than what the log said before them
	TooMany   int // rows read again beyond what was in flight, or twice by one run
	Unread    int // rows that a backfill which is done has not read, though nothing changed them
	Different int // rows that a reader of the topics has otherwise than the database
}

func (v *ReadVerdict) good() bool { return v.Stale+v.TooMany+v.Unread+v.Different == 0 }

// read judges a record that is of a backfill, or should be.
func (t *trial) read(r *Record) {
	switch {
	case r.Mark.IsEnd:
		t.backfill = append(t.backfill, r)
		return
	case r.Op != Read || !r.Mark.Backfill:
		t.note("wrong", &t.Wrong, "%s: operation %q, of a backfill: %t", r.where(), r.Op, r.Mark.Backfill)
		return
	}
	t.backfill = append(t.backfill, r)
	t.Rows++
	s := t.state(r)
	switch {
	case r.Partition != s.partition:
		t.note("reordered", &t.Reordered, "%s: %s in partition %d, others in %d", r.where(), r.wanted(), r.Partition, s.partition)
	case s.dead():
		t.note("stale", &t.Stale, "%s: %s after %s", r.where(), r.wanted(), opName(s.last))
	case r.Ver < s.ver:
		t.note("stale", &t.Stale, "%s: %s after version %d", r.where(), r.wanted(), s.ver)
	case r.Ver > s.ver:
		t.note("reordered", &t.Reordered, "%s: %s before its change, after version %d", r.where(), r.wanted(), s.ver)
	}
	s.hold(r)
}

// hold gives a key the row that a reader of the topic then has.
func (s *keyState) hold(r *Record) {
	s.last, s.ver, s.content = r.Op, max(s.ver, r.Ver), r.Content
	if r.Note != NoteUnavailable || r.Op != Update {
		s.note = r.Note
	}
}

// chunk is one END record of a backfill with the rows before it.
type chunk struct {
	end  *Record
	rows []*Record
}

// reading is what is found of one backfill.
type reading struct {
	topic string
	run   map[string]int // the last run that has read a key
}

// chunks takes the records of backfills apart, into chunks and what is left of torn ones,
// and judges each backfill.
func (t *trial) chunks() {
	slices.SortFunc(t.backfill, func(a, b *Record) int { return a.Mark.place().compare(b.Mark.place()) })
	open := map[string][]*Record{} // rows without an END record, by topic
	readings := map[string]*reading{}
	last := map[string]string{}
	for _, r := range t.backfill {
		if !r.Mark.IsEnd {
			open[r.Topic] = append(open[r.Topic], r)
			continue
		}
		topic := r.topic()
		t.Chunks++
		if why := (&chunk{r, open[topic]}).torn(); why != "" {
			t.tear(r, why)
		}
		last[topic] = r.Backfill
		t.readings(readings, r.Backfill, topic, open[topic])
		delete(open, topic)
	}
	for topic, rows := range open {
		t.tear(rows[0], "no END record")
		t.readings(readings, last[topic], topic, rows)
	}
	t.conclude(readings)
}

// topic is the one whose rows an END record of a backfill closes; a chunk has one.
func (r *Record) topic() string {
	for topic := range r.Counts.Collections {
		return topic
	}
	return ""
}

func (t *trial) tear(r *Record, why string) {
	if t.reads.Tears {
		t.TornChunks++
		return
	}
	t.note("torn", &t.Torn, "chunk of backfill %q, %s: %s", r.Backfill, r.where(), why)
}

// torn says what does not fit between the END record and the rows.
func (c *chunk) torn() string {
	last, events := map[tp]uint64{}, uint64(0)
	for _, r := range c.rows {
		if at, end := r.Mark.place(), c.end.Mark.place(); at.commit() != end.commit() || at.row <= c.end.From {
			return "rows without an END record before it"
		}
		last[tp{r.Topic, r.Partition}] = r.Mark.Row
		events++
	}
	if counted := uint64(c.end.Counts.Events); counted != events || c.end.Mark.Row != c.end.From+counted+1 {
		return fmt.Sprintf("END at row %d after row %d counts %d rows, there are %d", c.end.Mark.Row, c.end.From, counted, events)
	}
	return (&commit{parts: c.end.Mark.Parts, lastRow: last}).partsFit()
}

// readings notes which run has read what of a backfill, and counts what was read again.
func (t *trial) readings(all map[string]*reading, id, topic string, rows []*Record) {
	b := all[id]
	if b == nil {
		b = &reading{topic: topic, run: map[string]int{}}
		all[id] = b
	}
	for _, r := range rows {
		run, _ := slices.BinarySearch(t.reads.Starts, r.Time+1) // how many were started by then
		before, again := b.run[r.Key]
		b.run[r.Key] = run
		if !again {
			continue
		}
		t.Again++
		t.again[run]++
		if before == run {
			t.note("too many", &t.TooMany, "%s: backfill %s has read %q twice in run %d", r.where(), id, r.Key, run)
		}
	}
}

// conclude judges the backfills as a whole, and what they leave.
func (t *trial) conclude(readings map[string]*reading) {
	t.Backfills = len(readings)
	for run, n := range t.again {
		t.AgainMost = max(t.AgainMost, n)
		if n > t.reads.Again {
			t.note("too many", &t.TooMany, "run %d has read %d rows again, %d were in flight at most", run, n, t.reads.Again)
		}
	}
	for id, topic := range t.reads.Done {
		for i := range t.reads.Initial {
			row := &t.reads.Initial[i]
			if row.Topic != topic || t.keys[rowKey{topic, row.Key}].changed {
				continue
			}
			if b := readings[id]; b == nil || !has(b.run, row.Key) {
				t.note("unread", &t.Unread, "backfill %s has not read %q of %s", id, row.Key, topic)
			}
		}
	}
	t.compare()
}

func has(m map[string]int, key string) bool { _, ok := m[key]; return ok }

// compare compares what a reader of the topics has in the end with the database.
func (t *trial) compare() {
	there := map[rowKey]bool{}
	for i := range t.reads.Final {
		want := &t.reads.Final[i]
		k := rowKey{want.Topic, want.Key}
		there[k] = true
		switch s := t.keys[k]; {
		case s == nil || s.dead() || s.partition < 0:
			t.note("different", &t.Different, "%q of %s is in the database only", want.Key, want.Topic)
		case s.content != want.Content || s.note != want.Note && s.note != NoteUnavailable:
			t.note("different", &t.Different, "%q of %s is %q (note %x) in the database, %q (note %x) in the topic", want.Key, want.Topic, want.Content, want.Note, s.content, s.note)
		}
	}
	for k, s := range t.keys {
		if s.partition >= 0 && !s.dead() && !there[k] && t.finalTopic(k.topic) {
			t.note("different", &t.Different, "%q of %s is in the topic only", k.key, k.topic)
		}
	}
}

// finalTopic says whether the rows of a topic's table are known at all.
func (t *trial) finalTopic(topic string) bool {
	return slices.ContainsFunc(t.reads.Initial, func(r Row) bool { return r.Topic == topic })
}

// compare orders places.
func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.epoch, q.epoch), cmp.Compare(p.file, q.file), cmp.Compare(p.order, q.order), cmp.Compare(p.row, q.row))
}
