package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// A Codec is a way to compress the records of a batch. The numbers are those
// of the batch's attributes.
type Codec int8

// The codecs that Kafka knows.
const (
	None   Codec = 0
	Gzip   Codec = 1
	Snappy Codec = 2
	LZ4    Codec = 3
	Zstd   Codec = 4
)

var codecNames = [...]string{None: "none", Gzip: "gzip", Snappy: "snappy", LZ4: "lz4", Zstd: "zstd"}

// ErrUnknownCodec says that a name or a batch's attributes name no codec that
// exists.
var ErrUnknownCodec = errors.New("unknown codec")

// ParseCodec returns the codec called none, gzip, snappy, lz4 or zstd.
func ParseCodec(name string) (Codec, error) {
	for c, n := range codecNames {
		if n == name {
			return Codec(c), nil
		}
	}
	return None, fmt.Errorf("%w %q: want none, gzip, snappy, lz4 or zstd", ErrUnknownCodec, name)
}

// String returns the codec's name as ParseCodec takes it.
func (c Codec) String() string {
	if c < 0 || int(c) >= len(codecNames) {
		return fmt.Sprintf("codec(%d)", int8(c))
	}
	return codecNames[c]
}

// compress appends src, compressed, to dst. It allocates nothing once dst has
// the capacity and as many encoders exist as are in use at once.
func (c Codec) compress(dst, src []byte) ([]byte, error) {
	switch c {
	case Gzip:
		return gzipCompress(dst, src)
	case Snappy:
		return snappyCompress(dst, src), nil
	case LZ4:
		return lz4Compress(dst, src), nil
	case Zstd:
		return zstdCompress(dst, src)
	}
	return dst, fmt.Errorf("%w %d", ErrUnknownCodec, int8(c))
}

// A spares keeps encoders or decoders for the next use: at most as many as can
// run at once. Unlike a sync.Pool it never drops one that will be needed.
type spares[T any] chan T

func newSpares[T any]() spares[T] { return make(spares[T], runtime.GOMAXPROCS(0)) }

func (s spares[T]) get() (v T, ok bool) {
	select {
	case v = <-s:
		return v, true
	default:
		return v, false
	}
}

func (s spares[T]) put(v T) {
	select {
	case s <- v:
	default: // enough are kept
	}
}

var (
	gzipWriters  = newSpares[*gzipWriter]()
	lz4Writers   = newSpares[*lz4.CompressorCCompat]()
	zstdEncoders = newSpares[*zstd.Encoder]()
)

// A gzipWriter appends what its encoder writes to dst.
type gzipWriter struct {
	dst []byte
	enc *gzip.Writer
}

func (w *gzipWriter) Write(p []byte) (int, error) {
	w.dst = append(w.dst, p...)
	return len(p), nil
}

func gzipCompress(dst, src []byte) ([]byte, error) {
	w, ok := gzipWriters.get()
	if !ok {
		w = &gzipWriter{}
		w.enc = gzip.NewWriter(w)
	}
	w.dst = dst
	w.enc.Reset(w)
	_, err := w.enc.Write(src)
	err = errors.Join(err, w.enc.Close())
	dst, w.dst = w.dst, nil
	if err != nil {
		return dst, fmt.Errorf("compress gzip: %w", err)
	}
	gzipWriters.put(w)
	return dst, nil
}

// Snappy travels in the frame of Java's library (xerial), as Apache Kafka's
// own client writes it: magic, version and lowest compatible version as int32,
// then blocks, each behind its compressed size as int32, big-endian.
const (
	xerialMagic  = "\x82SNAPPY\x00"
	xerialHeader = xerialMagic + "\x00\x00\x00\x01\x00\x00\x00\x01"
	xerialBlock  = 32 << 10 // uncompressed bytes to a block, as in Java
)

func snappyCompress(dst, src []byte) []byte {
	dst = append(dst, xerialHeader...)
	for len(src) > 0 {
		n := min(len(src), xerialBlock)
		dst = appendBlock(dst, s2.MaxEncodedLen(n))
		size := len(dst) - s2.MaxEncodedLen(n)
		block := s2.EncodeSnappy(dst[size:], src[:n])
		binary.BigEndian.PutUint32(dst[size-4:], uint32(len(block)))
		dst = dst[:size+len(block)]
		src = src[n:]
	}
	return dst
}

// The frame of LZ4 as Apache Kafka reads it: magic, two bytes of flags and
// their checksum, then blocks behind their little-endian sizes (highest bit:
// stored), then a size of zero. Kafka wants independent blocks. The batch's
// CRC32C makes checksums of blocks and content superfluous.
const (
	lz4Magic  = "\x04\x22\x4d\x18"
	lz4Header = lz4Magic + "\x60\x40\x82" // version 1, independent blocks; blocks of at most 64 KiB
	lz4Block  = 64 << 10                  // uncompressed bytes to a block, as in Java
	lz4Stored = 1 << 31
)

func lz4Compress(dst, src []byte) []byte {
	c, ok := lz4Writers.get()
	if !ok {
		c = new(lz4.CompressorCCompat)
	}
	dst = append(dst, lz4Header...)
	for len(src) > 0 {
		n := min(len(src), lz4Block)
		dst = appendLZ4Block(dst, src[:n], c)
		src = src[n:]
	}
	lz4Writers.put(c)
	return append(dst, 0, 0, 0, 0)
}

func appendLZ4Block(dst, src []byte, c *lz4.CompressorCCompat) []byte {
	bound := lz4.CompressBlockBound(len(src))
	dst = appendBlock(dst, bound)
	at := len(dst) - bound
	n, err := c.CompressBlock(src, dst[at:])
	size := uint32(n)
	if err != nil || n == 0 || n >= len(src) {
		n = copy(dst[at:], src)
		size = uint32(n) | lz4Stored
	}
	binary.LittleEndian.PutUint32(dst[at-4:], size)
	return dst[:at+n]
}

// appendBlock makes room for a block's size (4 bytes) and n bytes after it.
func appendBlock(dst []byte, n int) []byte {
	if need := len(dst) + 4 + n; need <= cap(dst) {
		return dst[:need]
	}
	return append(dst, make([]byte, 4+n)...)
}

// zstdWindow bounds what an encoder and its readers hold; a batch is seldom
// larger.
const zstdWindow = 1 << 20

func zstdCompress(dst, src []byte) ([]byte, error) {
	enc, ok := zstdEncoders.get()
	if !ok {
		var err error
		enc, err = zstd.NewWriter(nil,
			zstd.WithEncoderLevel(zstd.SpeedFastest),
			zstd.WithEncoderConcurrency(1),
			zstd.WithEncoderCRC(false), // the batch has its own
			zstd.WithWindowSize(zstdWindow),
			zstd.WithLowerEncoderMem(true))
		if err != nil {
			return dst, fmt.Errorf("compress zstd: %w", err)
		}
	}
	dst = enc.EncodeAll(src, dst)
	zstdEncoders.put(enc)
	return dst, nil
}
