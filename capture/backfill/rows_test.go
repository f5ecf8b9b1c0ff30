package backfill

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"testing"

	"github.com/tailrace/tailrace/schemas"
)

// left returns the rows that are left, as text.
func left(r *Rows) (all []string) {
	for key, value := range r.All() {
		all = append(all, fmt.Sprintf("%s=%s", key[schemas.FrameSize:], value))
	}
	return all
}

func wantRows(t *testing.T, r *Rows, want ...string) {
	t.Helper()
	if got := left(r); fmt.Sprint(got) != fmt.Sprint(want) || r.Left() != len(want) {
		t.Errorf("%d rows are left, %q, want %q", r.Left(), got, want)
	}
}

func TestRows(t *testing.T) {
	var r Rows
	r.Drop([]byte("\x00\x00\x00\x00\x01a")) // of none
	r.DropAll()
	wantRows(t, &r)
	for range 3 { // the buffers are used again
		key, value := []byte("\x00\x00\x00\x00\x01a"), []byte("one")
		r.Add(key, value)
		copy(key[5:], "b")
		copy(value, "two")
		r.Add(key, value)
		r.Add([]byte("\x00\x00\x00\x00\x01"), nil) // an empty key, an empty value
		wantRows(t, &r, "a=one", "b=two", "=")
		if r.Len() != 3 || r.Bytes() != 6+3+6+3+5 {
			t.Errorf("%d rows of %d bytes", r.Len(), r.Bytes())
		}
		r.Drop([]byte("\x00\x00\x00\x00\x02a")) // another schema's id
		r.Drop([]byte("\x00\x00\x00\x00\x02a"))
		r.Drop([]byte("\x00\x00\x00\x00\x01ab"))
		r.Drop([]byte("\x00\x00"))
		wantRows(t, &r, "b=two", "=")
		r.Drop([]byte("\x00\x00\x00\x00\x01"))
		wantRows(t, &r, "b=two")
		for range r.All() {
			break
		}
		r.DropAll()
		r.DropAll()
		r.Drop([]byte("\x00\x00\x00\x00\x01b"))
		wantRows(t, &r)
		if r.Len() != 3 {
			t.Errorf("%d rows, dropped or not, want 3", r.Len())
		}
		r.Reset()
		if r.Len() != 0 || r.Left() != 0 || r.Bytes() != 0 {
			t.Error("Reset leaves something")
		}
		wantRows(t, &r)
	}
}

// TestRowsReset: a table of another size is of other rows.
func TestRowsReset(t *testing.T) {
	var r Rows
	for _, n := range []int{5, 100_000, 3, 0, 1, 40_000} {
		r.Reset()
		for i := range n {
			r.Add(framedKey(i, 8), []byte{1})
		}
		for i := 0; i < n+10; i += 2 {
			r.Drop(framedKey(i, 8))
			r.Drop(framedKey(i, 8))
		}
		want := 1
		for key := range r.All() {
			if !bytes.Equal(key, framedKey(want, 8)) {
				t.Fatalf("of %d rows: %x, want %d", n, key, want)
			}
			want += 2
		}
		if r.Left() != n/2 || want != n/2*2+1 {
			t.Errorf("of %d rows %d are left", n, r.Left())
		}
	}
}

// TestRowsCollide: tables as full as they get, where keys take each other's slots, and the
// first for the last.
func TestRowsCollide(t *testing.T) {
	moved, wrapped := 0, 0
	for from := 0; from < 8000; from += 8 {
		r := rowsOf(from, from+8)
		r.hash()
		for at, row := range r.slots {
			if row == 0 {
				continue
			}
			home := int(maphash.Bytes(seed, r.body(int(row-1)))) & (len(r.slots) - 1)
			if home != at {
				moved++
			}
			if home > at {
				wrapped++
			}
		}
		for i := from - 8; i < from+16; i++ {
			want := i - from
			if want < 0 || want >= 8 {
				want = -1
			}
			if got := r.find(framedKey(i, 8)[schemas.FrameSize:]); got != want {
				t.Fatalf("key %d of those from %d: row %d, want %d", i, from, got, want)
			}
		}
	}
	if moved == 0 || wrapped == 0 {
		t.Errorf("%d keys collided, %d went on at the first slot", moved, wrapped)
	}
}

// TestDropAllocatesNothing: not even from one chunk to the next.
func TestDropAllocatesNothing(t *testing.T) {
	var r Rows
	keys := make([][]byte, 5000)
	for i := range keys {
		keys[i] = framedKey(i, 8)
	}
	if n := testing.AllocsPerRun(20, func() {
		r.Reset()
		for _, k := range keys {
			r.Add(k, k)
		}
		for _, k := range keys[1000:2000] {
			r.Drop(k)
		}
		for range r.All() {
		}
	}); n != 0 {
		t.Errorf("%v allocations for a chunk", n)
	}
}

// FuzzRows compares with a map: each byte pair of ops adds a key, then drops one.
func FuzzRows(f *testing.F) {
	f.Add([]byte{}, []byte{1})
	f.Add([]byte{1, 2, 3, 4, 5, 6}, []byte{2, 2, 9})
	f.Add([]byte("the keys of some rows"), []byte("some keys"))
	var r Rows // used again by each
	f.Fuzz(func(t *testing.T, add, drop []byte) {
		r.Reset()
		have := map[string]bool{}
		var order []string
		for i, b := range add {
			key := string(bytes.Repeat([]byte{b}, 1+i%3))
			if _, there := have[key]; there {
				continue // keys of a table are unique
			}
			have[key] = true
			order = append(order, key)
			r.Add(append([]byte{0, 0, 0, 0, byte(i)}, key...), []byte(key))
		}
		for i, b := range drop {
			if b == 0xFF {
				r.DropAll()
				clear(have)
				continue
			}
			key := bytes.Repeat([]byte{b}, 1+i%3)
			delete(have, string(key))
			r.Drop(append([]byte{0, 0, 0, 0, 77}, key...))
		}
		if r.Left() != len(have) || r.Len() != len(order) {
			t.Fatalf("%d of %d are left, want %d of %d", r.Left(), r.Len(), len(have), len(order))
		}
		i := 0
		for key, value := range r.All() {
			for i < len(order) && !have[order[i]] {
				i++
			}
			if i == len(order) || string(key[schemas.FrameSize:]) != order[i] || string(value) != order[i] {
				t.Fatalf("row %x of %x at %d of %q", key, value, i, order)
			}
			i++
		}
	})
}

func BenchmarkDrop(b *testing.B) {
	r := rowsOf(0, 50_000)
	keys := make([][]byte, 1000)
	for i := range keys {
		keys[i] = framedKey(i*97, 8) // about half of them are not there
	}
	r.Drop(keys[0])
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		r.Drop(keys[n%len(keys)])
	}
}

func BenchmarkAdd(b *testing.B) {
	var r Rows
	key, value := framedKey(7, 8), make([]byte, 200)
	b.ReportAllocs()
	b.SetBytes(int64(len(key) + len(value)))
	for n := 0; b.Loop(); n++ {
		if n%20_000 == 0 {
			r.Reset()
		}
		r.Add(key, value)
	}
}

// BenchmarkHash is the first Drop of a chunk.
func BenchmarkHash(b *testing.B) {
	r := rowsOf(0, 100_000)
	b.ReportAllocs()
	for b.Loop() {
		r.hash()
	}
}
