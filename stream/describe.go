package stream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/segmentio/kafka-go/protocol"
)

// A handmade message is one whose API kafka-go does not know. It writes and
// reads itself.
type handmade interface {
	protocol.Message
	// appendTo appends the whole request but its size.
	appendTo(dst []byte, id int32, clientID string) []byte
	// answer reads the whole answer but its size, and returns the id in it.
	answer(b []byte) (id int32, res protocol.Message, err error)
}

// maxHandmade bounds an answer to a handmade message, in bytes.
const maxHandmade = 16 << 20

// roundTripHandmade writes m and reads the answer. written is called between.
func roundTripHandmade(rw io.ReadWriter, m handmade, id int32, clientID string, written func()) (int32, protocol.Message, error) {
	req := m.appendTo(make([]byte, 4), id, clientID)
	binary.BigEndian.PutUint32(req, uint32(len(req)-4))
	_, err := rw.Write(req)
	written()
	if err != nil {
		return 0, nil, fmt.Errorf("write request: %w", err)
	}
	var size [4]byte
	if _, err := io.ReadFull(rw, size[:]); err != nil {
		return 0, nil, fmt.Errorf("read answer: %w", err)
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxHandmade {
		return 0, nil, fmt.Errorf("read answer: it has %d bytes", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(rw, body); err != nil {
		return 0, nil, fmt.Errorf("read answer: %w", err)
	}
	return m.answer(body)
}

// describeTransaction is the request DescribeTransactions (key 65, version 0,
// KIP-664) about one transactional id.
type describeTransaction struct{ id string }

// ApiKey is DescribeTransactions.
func (describeTransaction) ApiKey() protocol.ApiKey { return 65 }

func (m describeTransaction) appendTo(dst []byte, id int32, clientID string) []byte {
	dst = append(dst, 0, 65, 0, 0) // key, version
	dst = binary.BigEndian.AppendUint32(dst, uint32(id))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(clientID)))
	dst = append(dst, clientID...)
	dst = append(dst, 0, 2) // no tags; one transactional id (lengths are one more than they say)
	dst = binary.AppendUvarint(dst, uint64(len(m.id))+1)
	dst = append(dst, m.id...)
	return append(dst, 0)
}

// transactionState is what a coordinator says of a transactional id.
type transactionState struct {
	code          Code
	state         string // Empty, Ongoing, PrepareCommit, CompleteCommit, …
	producerID    int64
	producerEpoch int16
}

// ApiKey is DescribeTransactions.
func (*transactionState) ApiKey() protocol.ApiKey { return 65 }

// answer reads an answer as far as it is of use: the first state, up to its
// topics.
func (describeTransaction) answer(b []byte) (int32, protocol.Message, error) {
	r := handReader{b: b}
	id := int32(r.uint(4))
	if tags := r.uvarint(); tags != 0 {
		return id, nil, errors.New("read answer: there are tags")
	}
	r.uint(4) // throttle time
	if n := r.uvarint(); n != 2 {
		return id, nil, fmt.Errorf("read answer: it has %d transactions", int64(n)-1)
	}
	s := &transactionState{code: Code(r.uint(2))}
	r.string() // the id
	s.state = r.string()
	r.uint(4) // timeout
	r.uint(8) // start
	s.producerID, s.producerEpoch = int64(r.uint(8)), int16(r.uint(2))
	if r.failed {
		return id, nil, errors.New("read answer: it is cut off")
	}
	return id, s, nil
}

// A handReader reads fields. Once it has failed it reads zeros.
type handReader struct {
	b      []byte
	failed bool
}

func (r *handReader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.failed, r.b = true, nil
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *handReader) uint(bytes uint64) (v uint64) {
	for _, b := range r.take(bytes) {
		v = v<<8 | uint64(b)
	}
	return v
}

func (r *handReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.failed, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

// string reads a compact string; null is "".
func (r *handReader) string() string {
	n := r.uvarint()
	if n == 0 {
		return ""
	}
	return string(r.take(n - 1))
}

// describe asks the coordinator what has become of the last transaction with
// our id. That it does not say, for want of a permission or of the API (Kafka
// before 3.0), is no error.
func (p *Producer) describe(ctx context.Context) (*transactionState, error) {
	var state *transactionState
	err := p.client.retry(ctx, p.cfg.Timeout, func(ctx context.Context) error {
		res, err := p.toCoordinator(ctx, opDescribe, describeTransaction{p.cfg.TransactionalID})
		if err != nil {
			return err
		}
		s := res.(*transactionState)
		if s.code.action().retried() {
			return p.answered(opDescribe, s.code)
		}
		state = s
		return nil
	})
	if e, ok := asError(err); ok && e.Op == opDescribe && !e.act.retried() {
		return nil, nil
	}
	if err != nil || state.code != 0 {
		return nil, err
	}
	return state, nil
}
