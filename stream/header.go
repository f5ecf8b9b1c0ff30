package stream

import (
	"encoding/binary"
	"fmt"
	"math"
)

// MarkKey is the name of the header that every record of ours carries. Its
// value is a Mark and, on END records, the list of EndPart after it.
const MarkKey = "tailrace"

// Flags of a Mark.
const (
	FlagBackfill = 1 << iota // the record is a row that was read, not a change from the log
	FlagRebased              // counting began anew here: n does not continue what stands before
	FlagEnd                  // the record ends a source transaction; EndParts follow

	flagsKnown = FlagBackfill | FlagRebased | FlagEnd
)

// markVersion is the first byte of the header.
const markVersion = 1

// MaxMarkSize is the most that AppendMark appends, in bytes.
const MaxMarkSize = 2 + 5*binary.MaxVarintLen64

var errMark error = markError{}

// markError is fatal: what is written would read the same the next time.
type markError struct{}

func (markError) Error() string { return "header tailrace is malformed" }
func (markError) Fatal() bool   { return true }
func (markError) Hint() string {
	return "a newer tailrace wrote it: run that version; or somebody else did: nobody else may write to the capture's topics"
}

// A Place is where a record comes from: which log (Epoch), where in it its
// commit stands (File, a binlog file's number or 0, and Pos, a position or an
// LSN), and which record of that commit it is (Row, from 1).
type Place struct {
	Epoch, File, Pos, Row uint64
}

// Compare returns -1, 0 or 1 as p lies before, at or after q.
func (p Place) Compare(q Place) int {
	switch {
	case p.Epoch != q.Epoch:
		return order(p.Epoch < q.Epoch)
	case p.File != q.File:
		return order(p.File < q.File)
	case p.Pos != q.Pos:
		return order(p.Pos < q.Pos)
	case p.Row != q.Row:
		return order(p.Row < q.Row)
	}
	return 0
}

func order(before bool) int {
	if before {
		return -1
	}
	return 1
}

// A Mark is what the header says of its record: its place in the log, and N,
// its number in its partition, from 1 without a gap.
type Mark struct {
	Flags byte
	Place
	N uint64
}

// AppendMark appends the header's value to dst: version byte, flags byte, then
// epoch, file, position, row and n as uvarints (encoding/binary's). For an END
// record AppendEndParts comes after it.
func AppendMark(dst []byte, m Mark) []byte {
	dst = append(dst, markVersion, m.Flags)
	dst = binary.AppendUvarint(dst, m.Epoch)
	dst = binary.AppendUvarint(dst, m.File)
	dst = binary.AppendUvarint(dst, m.Pos)
	dst = binary.AppendUvarint(dst, m.Row)
	return binary.AppendUvarint(dst, m.N)
}

// ParseMark reads a header's value. rest is a view of what follows the mark,
// the END record's parts; without FlagEnd nothing may follow. It fails on an
// unknown version or flag and on bytes that AppendMark does not write.
func ParseMark(b []byte) (m Mark, rest []byte, err error) {
	if len(b) < 2 {
		return Mark{}, nil, fmt.Errorf("%w: %d bytes", errMark, len(b))
	}
	if b[0] != markVersion {
		return Mark{}, nil, fmt.Errorf("%w: version %d is unknown", errMark, b[0])
	}
	if b[1]&^flagsKnown != 0 {
		return Mark{}, nil, fmt.Errorf("%w: flags %#02x are unknown", errMark, b[1])
	}
	m.Flags = b[1]
	p := uvarints{b: b[2:]}
	m.Epoch, m.File, m.Pos, m.Row, m.N = p.next(), p.next(), p.next(), p.next(), p.next()
	if p.bad {
		return Mark{}, nil, fmt.Errorf("%w: a number is cut off or too long", errMark)
	}
	if m.Flags&FlagEnd == 0 && len(p.b) > 0 {
		return Mark{}, nil, fmt.Errorf("%w: %d bytes too many", errMark, len(p.b))
	}
	return m, p.b, nil
}

// Mark finds and parses the record's header `tailrace`. found is false if it
// has none; rest is as ParseMark's, valid as long as the record. Two of them
// on one record are an error. It allocates nothing.
func (r *Record) Mark() (m Mark, rest []byte, found bool, err error) {
	h := r.Headers
	for {
		key, value, more := h.Next()
		if !more {
			return m, rest, found, nil
		}
		if string(key) != MarkKey {
			continue
		}
		if found {
			return Mark{}, nil, true, fmt.Errorf("%w: the record carries two", errMark)
		}
		found = true
		if m, rest, err = ParseMark(value); err != nil {
			return Mark{}, nil, true, err
		}
	}
}

// An EndPart says how far a source transaction reached in one partition: Row
// is the ordinal of its last record there.
type EndPart struct {
	Topic     string
	Partition int32
	Row       uint64
}

// minEndPart is the smallest size of an encoded EndPart.
const minEndPart = 4

// AppendEndParts appends the list of an END record to dst: the count, then for
// each part the topic (length and bytes), partition and row; all numbers are
// uvarints.
func AppendEndParts(dst []byte, parts []EndPart) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(parts)))
	for i := range parts {
		dst = binary.AppendUvarint(dst, uint64(len(parts[i].Topic)))
		dst = append(dst, parts[i].Topic...)
		dst = binary.AppendUvarint(dst, uint64(uint32(parts[i].Partition)))
		dst = binary.AppendUvarint(dst, parts[i].Row)
	}
	return dst
}

// ParseEndParts reads what ParseMark left of an END record's header. The
// topics are copies. It fails if anything is missing, left over or out of
// bounds, and then allocates no more than b is long.
func ParseEndParts(b []byte) ([]EndPart, error) {
	p := uvarints{b: b}
	count := p.next()
	if p.bad || count > uint64(len(p.b)/minEndPart) {
		return nil, fmt.Errorf("%w: the count of parts does not fit", errMark)
	}
	parts := make([]EndPart, 0, count)
	for range count {
		topic, partition, row := p.text(), p.next(), p.next()
		if p.bad || len(topic) == 0 || partition > math.MaxInt32 {
			return nil, fmt.Errorf("%w: part %d cannot be read", errMark, len(parts))
		}
		parts = append(parts, EndPart{Topic: string(topic), Partition: int32(partition), Row: row})
	}
	if len(p.b) > 0 {
		return nil, fmt.Errorf("%w: %d bytes after the parts", errMark, len(p.b))
	}
	return parts, nil
}

// uvarints reads numbers one after the other; bad stays set after the first
// that is cut off, over 64 bits, or longer than it has to be.
type uvarints struct {
	b   []byte
	bad bool
}

func (p *uvarints) next() uint64 {
	v, n := binary.Uvarint(p.b)
	if n <= 0 || n > 1 && p.b[n-1] == 0 {
		p.bad, p.b = true, nil
		return 0
	}
	p.b = p.b[n:]
	return v
}

func (p *uvarints) text() []byte {
	n := p.next()
	if n > uint64(len(p.b)) {
		p.bad, p.b = true, nil
		return nil
	}
	t := p.b[:n]
	p.b = p.b[n:]
	return t
}
