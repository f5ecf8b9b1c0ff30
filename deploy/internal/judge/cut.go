package judge

import "slices"

// Cut judges what a reader of committed records sees at one moment at which nobody
// writes: every source transaction must be there whole or not at all. It goes by the
// headers alone, since the registry may be down at that moment. It returns one line per
// transaction, or chunk of a backfill, that is torn. records are those of all partitions, from the beginning.
//
// Other than Judge it takes a transaction for whole if its END record is there, each
// partition that END names ends with the row that it says, and the rows count from 1 to
// the last of them.
func Cut(records []*Record) []string {
	commits := map[place]*commit{}
	var reads []*Record
	for _, r := range records {
		if r.Foreign {
			continue
		}
		if r.Mark.Backfill {
			reads = append(reads, r)
			continue
		}
		at := r.Mark.place().commit()
		c := commits[at]
		if c == nil {
			c = &commit{lastRow: map[tp]uint64{}, firstSee: r}
			commits[at] = c
		}
		if r.Mark.IsEnd {
			c.ends++
			c.parts = r.Mark.Parts
			continue
		}
		c.rows++
		c.lastRow[tp{r.Topic, r.Partition}] = r.Mark.Row
	}
	var out []string
	for _, c := range commits {
		if why := c.cutTorn(); why != "" {
			out = append(out, c.firstSee.where()+": "+why)
		}
	}
	return append(out, cutChunks(reads)...)
}

// cutChunks says which chunks are torn: the rows of each stand one after the other, with END
// behind them.
func cutChunks(records []*Record) []string {
	slices.SortFunc(records, func(a, b *Record) int { return a.Mark.place().compare(b.Mark.place()) })
	var out []string
	var rows []*Record
	for _, r := range records {
		if k := len(rows); k > 0 && (rows[k-1].Mark.place().commit() != r.Mark.place().commit() || rows[k-1].Mark.Row+1 != r.Mark.Row) {
			out = append(out, rows[k-1].where()+": a chunk ends without an END record, or rows are missing")
			rows = nil
		}
		if !r.Mark.IsEnd {
			rows = append(rows, r)
			continue
		}
		last := map[tp]uint64{}
		for _, row := range rows {
			last[tp{row.Topic, row.Partition}] = row.Mark.Row
		}
		if why := (&commit{parts: r.Mark.Parts, lastRow: last}).partsFit(); why != "" {
			out = append(out, r.where()+": "+why)
		}
		rows = nil
	}
	if k := len(rows); k > 0 {
		out = append(out, rows[k-1].where()+": a chunk without an END record")
	}
	return out
}

func (c *commit) cutTorn() string {
	if c.ends == 0 {
		return "rows without an END record"
	}
	if why := c.partsFit(); why != "" {
		return why
	}
	last := uint64(0)
	for _, row := range c.lastRow {
		last = max(last, row)
	}
	if uint64(c.rows) != last {
		return "rows are missing between the first and the last"
	}
	return ""
}
