package backfill

// Range is a part of a table in the order of its key, as the database compares: keys after
// After, up to and with To. A key is one text for each key column; nil is no bound.
type Range struct {
	After []string `json:"after,omitempty"`
	To    []string `json:"to,omitempty"`
}

// Progress is how far a range is written: After moves on to the last key whose chunk is.
type Progress struct {
	Range
	Done bool  `json:"done,omitempty"`
	Rows int64 `json:"rows"` // written, less those that were dropped
	Read int64 `json:"read"` // of the table
}

// Advance notes that a chunk is written.
func (p *Progress) Advance(c *Chunk) {
	if c.Last != nil {
		p.After = c.Last
	}
	p.Rows += int64(c.Rows.Left())
	p.Read += int64(c.Rows.Len())
	p.Done = c.Whole
}
