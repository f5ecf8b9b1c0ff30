package stream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// ErrTooLarge says that a batch's records are larger, once inflated, than the
// reader's bound.
var ErrTooLarge = errors.New("batch inflates beyond the bound")

var errFrame = errors.New("compressed frame is malformed")

var (
	gzipReaders  = newSpares[*gzipReader]()
	lz4Readers   = newSpares[*lz4Reader]()
	zstdDecoders = newSpares[zstdDecoder]()
)

// inflate appends src, uncompressed, to dst, which is empty. It writes no more
// than limit bytes: a longer content is ErrTooLarge.
func (c Codec) inflate(dst, src []byte, limit int) ([]byte, error) {
	switch c {
	case Gzip:
		return gzipInflate(dst, src, limit)
	case Snappy:
		return snappyInflate(dst, src, limit)
	case LZ4:
		return lz4Inflate(dst, src, limit)
	case Zstd:
		return zstdInflate(dst, src, limit)
	}
	return dst, fmt.Errorf("%w %d", ErrUnknownCodec, int8(c))
}

type gzipReader struct {
	src bytes.Reader
	dec gzip.Reader
}

// gzipInflate reads all members of src.
func gzipInflate(dst, src []byte, limit int) ([]byte, error) {
	r, ok := gzipReaders.get()
	if !ok {
		r = new(gzipReader)
	}
	r.src.Reset(src)
	err := r.dec.Reset(&r.src)
	if err == nil {
		dst, err = readTo(dst, &r.dec, limit)
	}
	r.src.Reset(nil)
	gzipReaders.put(r)
	return dst, err
}

type lz4Reader struct {
	src bytes.Reader
	dec *lz4.Reader
}

func lz4Inflate(dst, src []byte, limit int) ([]byte, error) {
	r, ok := lz4Readers.get()
	if !ok {
		r = &lz4Reader{dec: lz4.NewReader(nil)}
	}
	r.src.Reset(src)
	r.dec.Reset(&r.src)
	dst, err := readTo(dst, r.dec, limit)
	r.src.Reset(nil)
	lz4Readers.put(r)
	return dst, err
}

// readTo appends what r gives to dst, which it grows as it is filled.
func readTo(dst []byte, r io.Reader, limit int) ([]byte, error) {
	for {
		if len(dst) == cap(dst) {
			dst = slices.Grow(dst, max(4096, len(dst)))
		}
		n, err := r.Read(dst[len(dst):min(cap(dst), limit+1)])
		dst = dst[:len(dst)+n]
		switch {
		case len(dst) > limit:
			return dst, ErrTooLarge
		case err == io.EOF:
			return dst, nil
		case err != nil:
			return dst, err
		}
	}
}

// snappyInflate takes Java's framing, also several streams one after the
// other, and a bare block, as other clients write it.
func snappyInflate(dst, src []byte, limit int) ([]byte, error) {
	if !bytes.HasPrefix(src, []byte(xerialMagic)) {
		return snappyBlock(dst, src, limit)
	}
	for len(src) > 0 {
		if bytes.HasPrefix(src, []byte(xerialMagic)) {
			if len(src) < len(xerialHeader) {
				return dst, errFrame
			}
			src = src[len(xerialHeader):]
			continue
		}
		if len(src) < 4 {
			return dst, errFrame
		}
		n := binary.BigEndian.Uint32(src)
		src = src[4:]
		if uint64(n) > uint64(len(src)) {
			return dst, errFrame
		}
		var err error
		if dst, err = snappyBlock(dst, src[:n], limit); err != nil {
			return dst, err
		}
		src = src[n:]
	}
	return dst, nil
}

func snappyBlock(dst, src []byte, limit int) ([]byte, error) {
	n, err := s2.DecodedLen(src)
	if err != nil {
		return dst, err
	}
	at := len(dst)
	if n > limit-at {
		return dst, ErrTooLarge
	}
	dst = slices.Grow(dst, n)
	if _, err := s2.Decode(dst[at:at+n], src); err != nil {
		return dst, err
	}
	return dst[:at+n], nil
}

// A zstdDecoder is made for one limit.
type zstdDecoder struct {
	dec   *zstd.Decoder
	limit int
}

// zstdInflate also counts a frame as too large that asks for a window beyond
// limit, as only the highest levels do.
func zstdInflate(dst, src []byte, limit int) ([]byte, error) {
	z, ok := zstdDecoders.get()
	if !ok || z.limit != limit {
		dec, err := zstd.NewReader(nil,
			zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxMemory(uint64(limit)))
		if err != nil {
			return dst, err
		}
		z = zstdDecoder{dec: dec, limit: limit}
	}
	out, err := z.dec.DecodeAll(src, dst)
	zstdDecoders.put(z)
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded) {
		return dst, ErrTooLarge
	}
	if err != nil {
		return dst, err
	}
	return out, nil
}
