package postgres

import (
	"encoding/binary"
	"fmt"
	"io"
)

const (
	readBuffer   = 256 << 10
	maxMessage   = 1<<30 + 1<<20 // PostgreSQL builds no message beyond 1 GiB
	frameHead    = 1 + 4         // type · length, which counts itself
	minFreeSpace = 32 << 10      // below this a read is not worth its call
)

// frames splits what the server sends into messages, in place, in one buffer that is as
// large as the largest message needs. It is what replaces pgproto3 once replication runs:
// that costs a read, a message object and a context for each row.
type frames struct {
	r   io.Reader
	buf []byte
	at  int // first byte not yet handed out
	end int // first byte not yet read
}

func newFrames(r io.Reader) *frames { return &frames{r: r, buf: make([]byte, readBuffer)} }

// next returns the next message that is there in full: its type and content, which are
// valid until the next call of fill. Without one, ok is false.
//
//	Byte type · Int32 length, itself included · content
func (f *frames) next() (kind byte, content []byte, ok bool, err error) {
	rest := f.buf[f.at:f.end]
	if len(rest) < frameHead {
		return 0, nil, false, nil
	}
	n := int(int32(binary.BigEndian.Uint32(rest[1:])))
	if n < 4 || n > maxMessage {
		return 0, nil, false, fmt.Errorf("read the log: a message of %d bytes is none", n)
	}
	if len(rest) < 1+n {
		return 0, nil, false, nil
	}
	f.at += 1 + n
	return rest[0], rest[frameHead : 1+n], true, nil
}

// fill reads more, at least one byte, into the buffer, after next had nothing left, and
// returns how many.
func (f *frames) fill() (n int, err error) {
	f.makeRoom()
	n, err = f.r.Read(f.buf[f.end:])
	f.end += n
	if n > 0 {
		err = nil // it will come again
	}
	return n, err
}

// makeRoom moves what is left of a message to the start of the buffer, and sees that the
// buffer can hold that message, but is not much larger for long.
func (f *frames) makeRoom() {
	rest := f.end - f.at
	need := readBuffer
	if rest >= frameHead {
		need = max(need, 1+int(binary.BigEndian.Uint32(f.buf[f.at+1:])))
	}
	switch {
	case len(f.buf) < need || len(f.buf) > 2*need:
		old := f.buf
		f.buf = make([]byte, max(need, rest))
		f.end = copy(f.buf, old[f.at:f.end])
		f.at = 0
	case rest == 0:
		f.at, f.end = 0, 0
	case len(f.buf)-f.end < minFreeSpace || f.at > len(f.buf)/2:
		f.end = copy(f.buf, f.buf[f.at:f.end])
		f.at = 0
	}
}
