package backfill

import (
	"testing"
	"time"
)

func TestSize(t *testing.T) {
	took := func(rows, bytes int, took time.Duration) func(*Size) {
		return func(s *Size) { s.Took(rows, bytes, took) }
	}
	tests := []struct {
		name string
		do   []func(*Size)
		want int
	}{
		{"first", nil, firstRows},
		{"fast: four times", []func(*Size){took(1000, 1000, time.Millisecond)}, 4000},
		{"in no time: four times", []func(*Size){took(1000, 1000, 0)}, 4000},
		{"just right", []func(*Size){took(1000, 1000, chunkTime)}, 1000},
		{"slow", []func(*Size){took(1000, 1000, 2*chunkTime)}, 500},
		{"too slow for a row", []func(*Size){took(1000, 1000, 10000*chunkTime)}, 1},
		{"large", []func(*Size){took(1000, 2*chunkBytes, time.Millisecond)}, 500},
		{"one large row", []func(*Size){took(1, 100*chunkBytes, time.Millisecond)}, 1},
		{"at most", []func(*Size){took(maxRows, 1000, time.Millisecond)}, maxRows},
		{"nothing read", []func(*Size){took(0, 0, time.Hour)}, firstRows},
		{"late at once", []func(*Size){(*Size).Late}, firstRows / 4},
		{"late for ever", []func(*Size){(*Size).Late, (*Size).Late, (*Size).Late, (*Size).Late, (*Size).Late, (*Size).Late}, 1},
		{"a range's last rows, fast", []func(*Size){took(8000, 1000, chunkTime), took(3, 30, time.Millisecond)}, 8000},
		{"few rows found, slowly", []func(*Size){took(8000, 1000, chunkTime), took(30, 30, 2*chunkTime)}, 15},
		{"one of several at once that was asked for before", []func(*Size){took(1000, 1000, time.Millisecond),
			took(4000, 1000, time.Millisecond), took(1000, 1000, time.Millisecond)}, 16_000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s Size
			for _, do := range tt.do {
				do(&s)
			}
			if got := s.Rows(); got != tt.want {
				t.Errorf("%d rows, want %d", got, tt.want)
			}
		})
	}
	if s := (Size{}); s.MaxBytes() < chunkBytes {
		t.Error("chunks end before they have the size that is aimed at")
	}
}

// TestSizeSettles: at any speed, chunks come to take the time that they may.
func TestSizeSettles(t *testing.T) {
	for _, perRow := range []time.Duration{3 * time.Microsecond, 40 * time.Microsecond, time.Millisecond, 90 * time.Millisecond} {
		var s Size
		for range 20 {
			n := s.Rows()
			s.Took(n, 10*n, time.Duration(n)*perRow)
		}
		if got, want := s.Rows(), min(int(chunkTime/perRow), maxRows); got < want*9/10 || got > want*11/10 {
			t.Errorf("%v for each row: %d rows, want %d", perRow, got, want)
		}
	}
}

func TestAdvance(t *testing.T) {
	p := Progress{Range: Range{After: []string{"5"}, To: []string{"20"}}}
	rows := rowsOf(0, 10)
	rows.Drop(framedKey(3, 8))
	p.Advance(&Chunk{Rows: rows, Last: []string{"15"}})
	if p.After[0] != "15" || p.To[0] != "20" || p.Done || p.Rows != 9 || p.Read != 10 {
		t.Errorf("after a chunk: %+v", p)
	}
	rows = rowsOf(10, 12)
	rows.DropAll()
	p.Advance(&Chunk{Rows: rows, Last: []string{"17"}})
	if p.After[0] != "17" || p.Done || p.Rows != 9 || p.Read != 12 {
		t.Errorf("after a chunk whose rows were dropped: %+v", p)
	}
	p.Advance(&Chunk{Rows: rowsOf(0, 0), Whole: true})
	if p.After[0] != "17" || !p.Done || p.Rows != 9 || p.Read != 12 {
		t.Errorf("after an empty one: %+v", p)
	}
}

func TestWritten(t *testing.T) {
	for _, tt := range []struct {
		read, end Place
		want      bool
	}{
		{Place{}, Place{}, true},
		{Place{Offset: 4}, Place{Offset: 5}, false},
		{Place{Offset: 5}, Place{Offset: 5}, true},
		{Place{Offset: 6}, Place{Offset: 5}, true},
		{Place{File: 2, Offset: 1}, Place{File: 1, Offset: 5}, true},
		{Place{File: 1, Offset: 9}, Place{File: 2, Offset: 5}, false},
	} {
		if got := (&Chunk{End: tt.end}).Written(tt.read); got != tt.want {
			t.Errorf("read up to %v, the end at %v: %v", tt.read, tt.end, got)
		}
	}
}
