package backfill

import "time"

// What a chunk should take. One that takes longer keeps a transaction open at the source
// that long; a larger one takes more memory, since a few of them are under way.
const (
	chunkTime  = 250 * time.Millisecond
	chunkBytes = 4 << 20
)

const (
	firstRows = 1_000
	maxRows   = 100_000
)

// Size is how many rows a chunk is to have: it follows what chunks took.
type Size struct{ rows float64 }

// Rows returns the number of rows for the next chunk.
func (s *Size) Rows() int {
	if s.rows == 0 {
		s.rows = firstRows
	}
	return int(s.rows)
}

// Took notes how many rows a chunk had, their size, and how long reading it took. Chunks
// grow to four times the size at most from one to the next. One that had few rows because
// there were no more, or that was asked for when chunks were smaller, is no reason for
// smaller ones.
func (s *Size) Took(rows, bytes int, took time.Duration) {
	if rows == 0 {
		return
	}
	factor := 4.0
	if took > 0 {
		factor = min(factor, float64(chunkTime)/float64(took))
	}
	if bytes > 0 {
		factor = min(factor, chunkBytes/float64(bytes))
	}
	want := float64(rows) * factor
	if factor >= 1 {
		want = max(want, float64(s.Rows()))
	}
	s.rows = min(max(want, 1), maxRows)
}

// Late notes that a chunk could not be read in the time that it may take.
func (s *Size) Late() { s.rows = max(float64(s.Rows())/4, 1) }

// MaxBytes is at how many bytes of records the reading of a chunk ends, whatever the number
// of rows that was asked for.
func (s *Size) MaxBytes() int { return 4 * chunkBytes }
