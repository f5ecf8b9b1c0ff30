package postgres

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"testing/iotest"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// pieces is a reader that gives its bytes in pieces of random size.
type pieces struct {
	rest []byte
	rand *rand.Rand
	most int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := min(1+p.rand.IntN(p.most), len(p.rest), len(b))
	copy(b, p.rest[:n])
	p.rest = p.rest[n:]
	return n, nil
}

func readAll(t *testing.T, f *frames) (got [][]byte) {
	t.Helper()
	for {
		kind, content, ok, err := f.next()
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			got = append(got, append([]byte{kind}, content...))
			continue
		}
		if _, err := f.fill(); errors.Is(err, io.EOF) {
			return got
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestFramesInPieces(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		var stream []byte
		var want [][]byte
		for range 200 {
			content := make([]byte, r.IntN(1<<r.IntN(18)))
			for i := range content {
				content[i] = byte(r.Uint32())
			}
			want = append(want, append([]byte{'d'}, content...))
			stream = append(stream, frame('d', content)...)
		}
		got := readAll(t, newFrames(&pieces{stream, r, 1 << (1 + seed)}))
		if len(got) != len(want) {
			t.Fatalf("seed %d: %d messages, want %d", seed, len(got), len(want))
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("seed %d: message %d differs", seed, i)
			}
		}
	}
}

// The buffer is as large as the largest message needs, and no longer than that.
func TestFramesGrowAndShrink(t *testing.T) {
	large := frame('d', make([]byte, 3<<20))
	small := frame('k', []byte("x"))
	f := newFrames(iotest.HalfReader(bytes.NewReader(append(append(large, small...), frame('d', nil)...))))
	if got := readAll(t, f); len(got) != 3 || len(got[0]) != 1+3<<20 || string(got[1]) != "kx" {
		t.Fatalf("%d messages", len(got))
	}
	if len(f.buf) != readBuffer {
		t.Errorf("the buffer is of %d bytes", len(f.buf))
	}
}

// Also while there is always part of a message left.
func TestFramesShrinkInABacklog(t *testing.T) {
	stream := append(frame('d', make([]byte, 5<<20)), bytes.Repeat(frame('d', make([]byte, 1000)), 5000)...)
	f := newFrames(iotest.HalfReader(bytes.NewReader(stream)))
	most := 0
	for n := 0; n < 4000; {
		_, content, ok, err := f.next()
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			n++
			most = max(most, len(content))
		} else if _, err := f.fill(); err != nil {
			t.Fatal(err)
		}
	}
	if most != 5<<20 || len(f.buf) > 2*readBuffer {
		t.Errorf("the largest message was of %d bytes, the buffer is of %d", most, len(f.buf))
	}
}

func TestFramesRefuseImpossibleLengths(t *testing.T) {
	for _, head := range [][]byte{{'d', 0, 0, 0, 3}, {'d', 0xff, 0xff, 0xff, 0xff}, {'d', 0x7f, 0xff, 0xff, 0xff}} {
		f := newFrames(bytes.NewReader(head))
		if _, err := f.fill(); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := f.next(); err == nil {
			t.Errorf("%x was taken", head)
		}
	}
}

func TestFramesAllocateNothing(t *testing.T) {
	stream := bytes.Repeat(frame('d', make([]byte, 500)), 1000)
	f := newFrames(nil)
	n := testing.AllocsPerRun(20, func() {
		f.r = &endless{stream, 0}
		for range 2000 {
			if _, _, ok, err := f.next(); err != nil {
				t.Fatal(err)
			} else if !ok {
				if _, err := f.fill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		f.at, f.end = 0, 0
	})
	if n > 1 { // the reader of the test itself
		t.Errorf("%v allocations", n)
	}
}

type endless struct {
	b  []byte
	at int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.b[e.at:])
	e.at = (e.at + n) % len(e.b)
	return n, nil
}

func FuzzFrames(f *testing.F) {
	f.Add(frame('d', []byte("abc")), uint8(3))
	f.Fuzz(func(t *testing.T, stream []byte, most uint8) {
		fr := newFrames(&pieces{stream, rand.New(rand.NewPCG(1, 1)), 1 + int(most)})
		var again []byte
		for {
			kind, content, ok, err := fr.next()
			if err != nil {
				return
			}
			if ok {
				again = append(again, frame(kind, content)...)
				continue
			}
			if fr.end-fr.at >= frameHead && len(fr.buf) > 1<<21 {
				return // it announces more than the fuzzer has
			}
			if _, err := fr.fill(); err != nil {
				break
			}
		}
		if !bytes.HasPrefix(stream, again) {
			t.Errorf("%x was read as %x", stream, again)
		}
	})
}

// pgproto3 reads what it must, and leaves the rest in the connection.
func TestMessageReaderReadsNoFurther(t *testing.T) {
	both, err := (&pgproto3.CopyBothResponse{}).Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	ready, err := (&pgproto3.ReadyForQuery{TxStatus: 'I'}).Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	conn := bytes.NewReader(append(append(ready, both...), "the log"...))
	front := pgproto3.NewFrontend(&messageReader{r: conn}, io.Discard)
	for range 2 {
		if _, err := front.Receive(); err != nil {
			t.Fatal(err)
		}
	}
	if rest, err := io.ReadAll(conn); err != nil || string(rest) != "the log" {
		t.Errorf("left %q, %v", rest, err)
	}
}

// socketPair returns an armed socket and its other end, and counters of wait and resume.
func socketPair(t *testing.T, idle time.Duration) (s *socket, peer net.Conn, waits *int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialed := make(chan net.Conn, 1)
	go func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Error(err)
		}
		dialed <- c
	}()
	peer, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s = newSocket(<-dialed)
	t.Cleanup(func() { s.Close(); peer.Close() })
	waits = new(int)
	blocked := false
	s.arm(func() { *waits++; blocked = true }, func() {
		if !blocked {
			t.Error("resume without wait")
		}
		blocked = false
	}, idle)
	return s, peer, waits
}

func TestSocketReads(t *testing.T) {
	s, peer, waits := socketPair(t, 50*time.Millisecond)
	b := make([]byte, 1<<20)
	if _, err := s.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) || *waits != 1 {
		t.Errorf("idle: %v after %d waits", err, *waits)
	}
	if _, err := peer.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Read(b); err != nil || string(b[:n]) != "abc" {
		t.Errorf("%q, %v", b[:n], err)
	}
	if err := peer.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(b); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func TestSocketInterrupt(t *testing.T) {
	s, _, _ := socketPair(t, time.Hour)
	time.AfterFunc(20*time.Millisecond, s.interrupt)
	for range 2 {
		if _, err := s.Read(make([]byte, 10)); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
}

// With much coming in small pieces, reads are few; when it stops, they are eager again.
func TestSocketCoalesces(t *testing.T) {
	s, peer, waits := socketPair(t, time.Second)
	const total = 64 << 20
	go func() {
		piece := make([]byte, 400)
		for sent := 0; sent < total; sent += len(piece) {
			if _, err := peer.Write(piece); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	b := make([]byte, readBuffer)
	reads, got := 0, 0
	for got < total {
		n, err := s.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		reads++
		got += n
	}
	if reads > total/(16<<10) {
		t.Errorf("%d reads of %d bytes on average, %d waits", reads, got/reads, *waits)
	}
	begin := time.Now()
	for i := range 20 {
		if _, err := peer.Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		if n, err := s.Read(b); err != nil || n == 0 {
			t.Fatal(n, err)
		}
	}
	if d := time.Since(begin); d > time.Second {
		t.Errorf("20 single bytes took %s", d)
	}
}
