package topics

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tailrace/tailrace/deploy/internal/judge"
)

// The flags of the header.
const (
	flagBackfill = 1
	flagRebased  = 2
	flagEnd      = 4
)

// ParseMark takes the header `tailrace` apart:
//
//	version byte (1) | flags byte | uvarints: epoch, file, order, row, n
//	END records: | uvarint count | count × (uvarint length, topic, uvarint partition, uvarint row)
//
// Bytes left over or missing are an error.
func ParseMark(b []byte) (judge.Mark, error) {
	if len(b) < 2 || b[0] != 1 {
		return judge.Mark{}, fmt.Errorf("header tailrace: %d bytes, not of version 1", len(b))
	}
	flags := b[1]
	m := judge.Mark{Backfill: flags&flagBackfill != 0, Rebased: flags&flagRebased != 0, IsEnd: flags&flagEnd != 0}
	r := numbers{rest: b[2:]}
	m.Epoch, m.File, m.Order, m.Row, m.N = r.next(), r.next(), r.next(), r.next(), r.next()
	if m.IsEnd {
		for left := r.next(); left > 0 && r.err == nil; left-- {
			topic := string(r.bytes(r.next()))
			m.Parts = append(m.Parts, judge.Part{Topic: topic, Partition: int32(r.next()), Row: r.next()})
		}
	}
	switch {
	case flags&^(flagBackfill|flagRebased|flagEnd) != 0:
		return m, fmt.Errorf("header tailrace: unknown flags %#x", flags)
	case r.err != nil:
		return m, r.err
	case len(r.rest) > 0:
		return m, fmt.Errorf("header tailrace: %d bytes left over", len(r.rest))
	}
	return m, nil
}

// numbers reads uvarints; after the first that is cut off it yields zeros.
type numbers struct {
	rest []byte
	err  error
}

var errCut = errors.New("header tailrace: cut off")

func (r *numbers) next() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.err, r.rest = errCut, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *numbers) bytes(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.err, r.rest = errCut, nil
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}
