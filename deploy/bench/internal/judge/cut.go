package judge

// Cut judges what a reader of committed records sees at one moment at which nobody
// writes: every source transaction must be there whole or not at all. It goes by the
// headers alone, since the registry may be down at that moment. It returns one line per
// transaction that is torn. records are those of all partitions, from the beginning.
//
// Other than Judge it takes a transaction for whole if its END record is there, each
// partition that END names ends with the row that it says, and the rows count from 1 to
// the last of them.
func Cut(records []*Record) []string {
	commits := map[place]*commit{}
	for _, r := range records {
		if r.Foreign {
			continue
		}
		if r.Mark.Backfill { // no transaction of the source
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
