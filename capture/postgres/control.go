package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/schemas"
)

// stream is one run's reading of the log: where it stands, and what it knows of tables.
type stream struct {
	rowWriter
	src    *Source
	frames *frames
	nulls  bool
	pace   func(behind bool) // tells the reader whether there is a backlog

	// describeTable makes the version of a relation from what the log does not say.
	describeTable func(context.Context, *relation) (*schemas.Table, error)

	relations map[uint32]*relation
	current   map[string]*relation // by name: the one whose version the Emitter took last
	last      *relation            // of the last row

	open       bool // a Begin without its Commit
	announced  bool // the Emitter knows of it
	finalLSN   uint64
	commitTime int64 // microseconds since 1970
	xid        uint32
	lastCommit uint64 // end of the last commit
	txID       []byte

	awaiting bool             // somebody waits for more of the log than was read
	patience func(short bool) // tells the reader how long to wait for input
	askedAt  int64            // when the server was asked how far it is, as now
	idleAt   int64            // when the Emitter was last told that nothing is in flight, as now

	pos   uint64 // up to which the log has been read, outside transactions
	told  uint64 // the pos that the Emitter knows
	asked bool   // the server wants to hear what is durable
}

// Lengths of the heads of CopyData messages. Source: PostgreSQL's documentation,
// "Streaming Replication Protocol".
const (
	logDataHead  = 1 + 8 + 8 + 8 // 'w' · LSN of the data · the server's end of the log · time
	keepaliveLen = 1 + 8 + 8 + 1 // 'k' · end of the log as read by the server · time · reply wanted
)

// postgresEpoch is 2000-01-01 in microseconds since 1970.
const postgresEpoch = 946_684_800 * microsPerSecond

// message handles one message of the server: CopyData is what there is many of.
func (s *stream) message(ctx context.Context, kind byte, b []byte) error {
	if kind == 'd' && len(b) > logDataHead && b[0] == 'w' {
		lsn, m := binary.BigEndian.Uint64(b[1:]), b[logDataHead:]
		if m[0] == 'I' || m[0] == 'U' || m[0] == 'D' {
			return s.row(ctx, lsn, m)
		}
		if m[0] == 'B' {
			return s.begin(lsn, m, int64(binary.BigEndian.Uint64(b[17:])))
		}
		return s.control(ctx, lsn, m)
	}
	if kind == 'd' && len(b) == keepaliveLen && b[0] == 'k' {
		return s.keepalive(ctx, binary.BigEndian.Uint64(b[1:]), b[keepaliveLen-1] != 0)
	}
	return s.protocol(kind, b)
}

// control handles the messages of pgoutput that are no row's change.
func (s *stream) control(ctx context.Context, lsn uint64, m []byte) (err error) {
	switch m[0] {
	case 'C':
		err = s.commit(ctx, m)
	case 'R':
		err = s.relation(m)
	case 'T':
		err = s.truncate(ctx, lsn, m)
	case 'O', 'Y', 'M': // origin, name of a type, pg_logical_emit_message: nothing to write
		return nil
	default:
		err = protocolError(errors.New("its type is not known"))
	}
	if errors.Is(err, errProtocol) {
		return s.broken(lsn, m, err)
	}
	return err
}

// broken is the error for a message that is not as pgoutput writes it.
func (s *stream) broken(lsn uint64, m []byte, err error) error {
	return stop("this is a server that this version does not know, or a fault of one of the two; nothing was skipped",
		"read message %q of %d bytes at %s: %w", m[:min(1, len(m))], len(m), lsnText(lsn), err)
}

// delay from which on a log is read with a backlog, in microseconds.
const delay = 100_000

// begin reads 'B' Int64 final LSN · Int64 commit time · Int32 xid. The Emitter hears of it
// at the first change, so that empty transactions cost nothing. sent is when the server
// sent it, by the clock by which it was committed.
func (s *stream) begin(lsn uint64, m []byte, sent int64) error {
	r := byteReader{rest: m[1:]}
	final, at, xid := r.uint64(), int64(r.uint64()), r.uint32()
	err := r.end()
	if err == nil && s.open {
		err = errors.New("a transaction begins inside another")
	}
	if err != nil {
		return s.broken(lsn, m, protocolError(err))
	}
	s.pace(sent-at > delay)
	s.open, s.announced = true, false
	s.finalLSN, s.commitTime, s.xid = final, at+postgresEpoch, xid
	return nil
}

// announce tells the Emitter of the open transaction.
func (s *stream) announce() error {
	if !s.open {
		return lost("", "read a change outside of a transaction")
	}
	s.source.SetTransaction(schemas.SourceTx{ID: uint64(s.xid), CommitMicros: s.commitTime, LastCommitLSN: s.lastCommit})
	s.txID = strconv.AppendUint(s.txID[:0], uint64(s.xid), 10)
	s.txID = strconv.AppendUint(append(s.txID, ':'), s.finalLSN, 10)
	s.announced = true
	return s.out.Begin(&capture.Tx{Pos: s.finalLSN, ID: view(s.txID), XID: uint64(s.xid), CommitTime: s.commitTime})
}

// commit reads 'C' Int8 flags · Int64 commit LSN · Int64 end LSN · Int64 commit time.
func (s *stream) commit(ctx context.Context, m []byte) error {
	r := byteReader{rest: m[1:]}
	_, lsn, end, _ := r.byte(), r.uint64(), r.uint64(), r.uint64()
	if err := r.end(); err != nil {
		return protocolError(err)
	}
	if !s.open || lsn != s.finalLSN {
		return protocolError(fmt.Errorf("it commits %s, but %s is open", lsnText(lsn), lsnText(s.finalLSN)))
	}
	s.open = false
	s.lastCommit = end
	s.reached(end)
	if !s.announced {
		return nil
	}
	s.told = s.pos
	return s.out.Commit(ctx, capture.Position{Offset: end})
}

// reached notes that the log has been read up to lsn.
func (s *stream) reached(lsn uint64) {
	if lsn > s.pos {
		s.pos = lsn
		s.src.confirm.received.Store(lsn)
	}
}

// keepalive: the server has sent all commits that end at or before end. That says nothing
// of the transaction that is being sent.
func (s *stream) keepalive(ctx context.Context, end uint64, asked bool) error {
	if s.open {
		if asked {
			s.src.confirm.repeat()
		}
		return nil
	}
	s.reached(end)
	s.asked = s.asked || asked
	if !s.asked {
		return nil // told when there is nothing more to read
	}
	return s.idle(ctx)
}

// idle tells the Emitter that nothing is in flight.
func (s *stream) idle(ctx context.Context) error {
	asked := s.asked
	s.asked, s.told, s.idleAt = false, s.pos, s.now
	s.src.wake.idle.Store(false)
	err := s.out.Idle(ctx, capture.Position{Offset: s.pos}, asked)
	// An answer that says less than the server waits for makes it ask again at once; so
	// it is given now only if there is nothing to wait for. Confirm gives it otherwise.
	if c := s.src.confirm; asked && c.durable.Load() >= s.pos {
		c.repeat()
	}
	return err
}

// relation takes a Relation message. If it says what the log said before, the plan stays.
func (s *stream) relation(m []byte) error {
	rel, err := parseRelation(m)
	if err != nil {
		return protocolError(err)
	}
	rel.choice = s.src.cfg.choose(rel)
	s.last = nil
	old := s.relations[rel.id]
	if rel.same(old) && s.current[rel.String()] == old {
		return nil
	}
	if rel.same(old) {
		rel.added = old.added
	}
	s.relations[rel.id] = rel
	return nil
}

// describe has the Emitter take the version of a relation, and makes the plan for it.
func (s *stream) describe(ctx context.Context, rel *relation) error {
	route, err := s.out.Table(ctx, rel.version(s.describeTable))
	if err != nil {
		return err
	}
	s.current[rel.String()] = rel
	if rel.plan, err = compile(rel, route, s.nulls); err != nil {
		return stop(hintLeaveOut, "make the plan of table %s: %w", rel, err)
	}
	return nil
}

// version returns what an Emitter is told of a relation.
func (rel *relation) version(describe func(context.Context, *relation) (*schemas.Table, error)) *capture.TableVersion {
	v := &capture.TableVersion{Namespace: rel.namespace, Name: rel.name, Hash: rel.hash(), Log: rel.logHash(), Keys: rel.keyHash()}
	v.Describe = func(ctx context.Context) (*schemas.Table, error) { return describe(ctx, rel) }
	return v
}

// truncate reads 'T' Int32 number of relations · Int8 options · Int32 relation ids.
func (s *stream) truncate(ctx context.Context, lsn uint64, m []byte) error {
	r := byteReader{rest: m[1:]}
	n, _ := int(r.uint32()), r.byte()
	if r.failed || n != len(r.rest)/4 || len(r.rest)%4 != 0 {
		return protocolError(errTruncated)
	}
	for range n {
		rel := s.relations[r.uint32()]
		if rel == nil {
			return protocolError(errors.New("a relation was never described"))
		}
		if err := s.truncateOne(ctx, lsn, rel); err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) truncateOne(ctx context.Context, lsn uint64, rel *relation) error {
	if !s.announced {
		if err := s.announce(); err != nil {
			return err
		}
	}
	if rel.plan == nil {
		if err := s.describe(ctx, rel); err != nil {
			return err
		}
	}
	b := schemas.AppendFrame(s.value[:0], rel.plan.route.ValueID)
	b = schemas.AppendUnion(schemas.AppendUnion(b, schemas.EnvelopeNull), schemas.EnvelopeNull)
	b = s.source.Append(b, rel.plan.source, lsn)
	s.value = schemas.AppendEnvelopeTail(b, 't', s.now)
	s.change = capture.Change{Route: rel.plan.route, Op: 't', Value: s.value}
	return s.out.Change(ctx, &s.change)
}

// protocol handles what is no CopyData, and CopyData of unknown content.
func (s *stream) protocol(kind byte, b []byte) error {
	switch kind {
	case 'N':
		return s.notice(b)
	case 'S': // a setting of the session changed: ParameterStatus
		return nil
	case 'E':
		var e pgproto3.ErrorResponse
		if err := e.Decode(b); err != nil {
			return fmt.Errorf("read the log: %w", err)
		}
		return streamError(pgconn.ErrorResponseToPgError(&e))
	case 'c', 'C', 'Z':
		return errServerEnded
	}
	return stop("what answers may be no PostgreSQL, or one that this version does not know; nothing was skipped", "read the log: message %q of %d bytes is not known", kind, len(b))
}

// notice: PostgreSQL 18 goes on without a publication that did not exist when a change was
// made, and says so in a warning only. That would skip changes.
func (s *stream) notice(b []byte) error {
	var n pgproto3.NoticeResponse
	if err := n.Decode(b); err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	if n.Code == stateNotPrerequisite {
		return lost(hintPublication, "read the log: the server goes on without changes: publication %q does not exist: %s", s.src.cfg.Publication, n.Message)
	}
	s.src.log.Info("the server says", "severity", n.Severity, "message", n.Message)
	return nil
}

// errServerEnded is transient: the server shut down, or ended the replication.
var errServerEnded = errors.New("the server ended the replication")

// errProtocol marks errors of the message's own bytes.
var errProtocol = errors.New("message is malformed")

func protocolError(err error) error { return fmt.Errorf("%w: %w", errProtocol, err) }

func lsnText(lsn uint64) string { return pglogrepl.LSN(lsn).String() }
