package topics

import (
	"encoding/binary"
	"reflect"
	"testing"

	"github.com/tailrace/tailrace/deploy/internal/judge"
)

func uvarints(b []byte, values ...uint64) []byte {
	for _, v := range values {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func TestParseMark(t *testing.T) {
	row := uvarints([]byte{1, 0}, 3, 0, 1<<40, 7, 300)
	m, err := ParseMark(row)
	if err != nil || !reflect.DeepEqual(m, judge.Mark{Epoch: 3, Order: 1 << 40, Row: 7, N: 300}) {
		t.Errorf("%+v, %v", m, err)
	}
	end := uvarints([]byte{1, 4}, 1, 2, 10, 8, 9, 2, 3)
	end = append(end, "a.b"...)
	end = uvarints(end, 5, 6, 1)
	end = append(end, 'c')
	end = uvarints(end, 0, 7)
	m, err = ParseMark(end)
	want := judge.Mark{Epoch: 1, File: 2, Order: 10, Row: 8, N: 9, IsEnd: true, Parts: []judge.Part{{Topic: "a.b", Partition: 5, Row: 6}, {Topic: "c", Partition: 0, Row: 7}}}
	if err != nil || !reflect.DeepEqual(m, want) {
		t.Errorf("%+v, %v", m, err)
	}
	for _, whole := range [][]byte{row, end} {
		for n := range whole {
			if _, err := ParseMark(whole[:n]); err == nil {
				t.Errorf("%d of %d bytes pass", n, len(whole))
			}
		}
		if _, err := ParseMark(append(whole[:len(whole):len(whole)], 0)); err == nil {
			t.Error("a byte too many passes")
		}
	}
	for _, b := range [][]byte{uvarints([]byte{2, 0}, 1, 1, 1, 1, 1), uvarints([]byte{1, 8}, 1, 1, 1, 1, 1)} {
		if _, err := ParseMark(b); err == nil {
			t.Errorf("version %d with flags %d passes", b[0], b[1])
		}
	}
}
