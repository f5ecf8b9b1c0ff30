package stream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/segmentio/kafka-go"
)

// What errors of this package are, by errors.Is.
var (
	// ErrClosed: the client was closed.
	ErrClosed = errors.New("client is closed")
	// ErrFenced: another producer has taken over the transactional id. Who is
	// fenced must not start again at once.
	ErrFenced = errors.New("fenced by another producer")
	// ErrTransactionTimeout: the transaction was open for longer than its
	// timeout, so the broker aborted it.
	ErrTransactionTimeout = errors.New("transaction timed out")
	// ErrOutcomeUnknown: an end of transaction was sent and not answered. Only
	// a new producer, and a look at what is committed then, finds out.
	ErrOutcomeUnknown = errors.New("outcome of the transaction is unknown")
	// ErrRecordTooLarge: the broker does not take a batch of that size.
	ErrRecordTooLarge = errors.New("record is larger than the broker takes")
	// ErrNoTopic: the topic, or the partition, does not exist.
	ErrNoTopic = errors.New("topic does not exist")
	// ErrOffsetOutOfRange: there is no such offset in the partition.
	ErrOffsetOutOfRange = errors.New("offset is out of range")
	// ErrHanging: the last stable offset did not reach the end.
	ErrHanging = errors.New("a transaction was left open")
	// ErrNotAuthorized: the broker refuses, for want of a permission.
	ErrNotAuthorized = errors.New("not authorized")
)

// An Error is what went wrong between us and the broker. Its methods say what
// it means for a run, and its hint what a person can do.
type Error struct {
	Op        string // what was asked for, such as "produce"
	Topic     string // "" if it was not about a topic
	Partition int32  // -1 if it was not about a partition
	Code      Code   // what the broker answered; 0 if it did not answer
	Message   string // what the broker said beside the code
	Err       error  // cause, or one of the Err variables; may be nil

	act  action
	hint string
}

// Error says what was asked for, of what, and why it failed.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Topic != "" {
		fmt.Fprintf(&b, " topic %s", e.Topic)
		if e.Partition >= 0 {
			fmt.Fprintf(&b, " partition %d", e.Partition)
		}
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if e.Code != 0 {
		fmt.Fprintf(&b, ": broker answered %v (%d)", e.Code, int16(e.Code))
	}
	if e.Message != "" && e.Message != e.Code.String() {
		fmt.Fprintf(&b, ": %s", e.Message)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Fatal says that the same run started again would fail in the same way.
func (e *Error) Fatal() bool { return e.act == actStop || e.act == actFenced }

// Temporary says that it was tried again for as long as was allowed, and that
// it may well work later.
func (e *Error) Temporary() bool { return e.act.retried() }

// Environment says that the cause lies outside of the program and its data: a
// permission, a missing topic, a broker that cannot be reached.
func (e *Error) Environment() bool {
	switch e.act {
	case actUnsent, actUnanswered:
		return true
	}
	return e.act == actStop && (errors.Is(e, ErrNotAuthorized) || errors.Is(e, ErrNoTopic) ||
		e.Code == codeInvalidReplication || e.Code == codePolicyViolation || e.Code == codeInvalidTxnTimeout || e.Code == 0)
}

// Hint says what a person can do about it; "" if there is nothing to say.
func (e *Error) Hint() string { return e.hint }

// An OffsetError says that a partition does not have the offset that was asked
// for, and what it has: records were removed by retention, or the topic was
// made anew. Nothing is read in its place.
type OffsetError struct {
	Topic      string
	Partition  int32
	Offset     int64 // asked for
	Start, End int64 // the partition's first offset, and the one after its last
}

// Error says what is there instead.
func (e *OffsetError) Error() string {
	return fmt.Sprintf("read topic %s partition %d: offset %d is out of range: it has %d to %d",
		e.Topic, e.Partition, e.Offset, e.Start, e.End)
}

// Is makes the error an ErrOffsetOutOfRange.
func (e *OffsetError) Is(target error) bool { return target == ErrOffsetOutOfRange }

// Fatal is true: asking again gives the same answer.
func (e *OffsetError) Fatal() bool { return true }

// Hint says what may have happened.
func (e *OffsetError) Hint() string {
	if e.Offset < e.Start {
		return "records were removed by the topic's retention before they were read; give the topic a longer retention.ms or retention.bytes"
	}
	return "the topic ends before that offset: it was deleted and created again, or the broker lost data"
}

// answered makes the error for a code that a broker answered.
func answered(op, topic string, partition int32, code Code, message string) *Error {
	e := &Error{Op: op, Topic: topic, Partition: partition, Code: code, Message: message, act: code.action()}
	switch code {
	case codeTopicNotAuthorized, codeClusterNotAuthorized, codeTxnIDNotAuthorized, codeGroupNotAuthorized:
		e.Err, e.hint = ErrNotAuthorized, aclHint(op, topic, code)
	case codeMessageTooLarge, codeRecordListTooLarge:
		e.Err = ErrRecordTooLarge
		e.hint = fmt.Sprintf("raise max.message.bytes of the topic %s: kafka-configs.sh --alter --entity-type topics --entity-name %s --add-config max.message.bytes=BYTES "+
			"(the broker's default is message.max.bytes; consumers may need larger fetch sizes)", topic, topic)
	case codeUnknownTopic:
		e.Err, e.hint = ErrNoTopic, "create the topic, or let it be created; the name may also be hidden by a missing DESCRIBE permission"
	case codeInvalidRecord:
		e.hint = fmt.Sprintf("a compacted topic takes no record without a key, which those of a table without a primary key and of a TRUNCATE are: "+
			"set cleanup.policy=delete on the topic %s", topic)
	case codeInvalidTopic:
		e.hint = "a topic's name has up to 249 letters, digits, dots, hyphens and underscores"
	case codeInvalidTxnTimeout:
		e.hint = "the transaction timeout is larger than the broker's transaction.max.timeout.ms"
	case codeStorage:
		e.hint = "the broker cannot write to its disk: free space there"
	}
	if e.act == actFenced {
		e.Err = ErrFenced
		e.hint = "another process runs with the same transactional id; stop one of the two"
	}
	return e
}

// aclHint names the permission that is missing.
func aclHint(op, topic string, code Code) string {
	switch code {
	case codeTopicNotAuthorized:
		verb := "DESCRIBE"
		switch op {
		case opProduce, opAddPartitions:
			verb = "WRITE"
		case opFetch:
			verb = "READ"
		case opCreateTopic:
			verb = "CREATE"
		}
		return fmt.Sprintf("give the user the ACL %s on the topic %s: kafka-acls.sh --add --allow-principal User:NAME --operation %s --topic %s", verb, topic, verb, topic)
	case codeTxnIDNotAuthorized:
		return "give the user the ACLs WRITE and DESCRIBE on the transactional id: kafka-acls.sh --add --allow-principal User:NAME --operation Write --operation Describe --transactional-id ID"
	case codeClusterNotAuthorized:
		if op == opCreateTopic {
			return "give the user the ACL CREATE on the cluster or on the topic, or create the topic by hand"
		}
		return "give the user the ACL IDEMPOTENT_WRITE on the cluster, or WRITE on the topics: kafka-acls.sh --add --allow-principal User:NAME --operation IdempotentWrite --cluster"
	}
	return "give the user the permission that the operation needs"
}

// unreached makes the error of a request that got no answer from addr. sent
// says whether any of it may have reached the broker.
func unreached(op, addr string, sent bool, err error) *Error {
	e := &Error{Op: op, Partition: -1, Err: fmt.Errorf("broker %s: %w", addr, err), act: actUnsent}
	if sent {
		e.act = actUnanswered
	}
	e.hint = "check that the broker runs and can be reached at " + addr
	var code kafka.Error
	switch {
	case errors.As(err, &code):
		e.Code = Code(code)
		switch e.Code {
		case codeSASLFailed, codeUnsupportedSASL, codeIllegalSASLState:
			e.act, e.Err = actStop, fmt.Errorf("broker %s: %w", addr, ErrNotAuthorized)
			e.hint = "check the user, the password and the SASL mechanism"
		case codeUnsupportedVersion:
			e.act, e.hint = actStop, "the broker is too old, or is not Apache Kafka"
		}
	case isTLS(err):
		e.act, e.hint = actStop, "check the TLS settings: the certificate authority, the server's name, the client certificate"
	case !sent && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)):
		e.hint += "; it ends new connections: perhaps it wants TLS or SASL, or does not"
	case strings.Contains(err.Error(), "expecting TLS"):
		e.act, e.hint = actStop, "the broker speaks TLS on this port: switch TLS on"
	}
	return e
}

// isTLS says whether err comes of the certificates, not of the network.
func isTLS(err error) bool {
	var (
		unknown  x509.UnknownAuthorityError
		host     x509.HostnameError
		invalid  x509.CertificateInvalidError
		verify   *tls.CertificateVerificationError
		alert    tls.AlertError
		notTLS   tls.RecordHeaderError
		isAlert  = errors.As(err, &alert)
		isRecord = errors.As(err, &notTLS)
	)
	return isAlert || isRecord || errors.As(err, &unknown) || errors.As(err, &host) || errors.As(err, &invalid) || errors.As(err, &verify)
}

// final returns e as an error that is not tried again: a person has to do
// something.
func (e *Error) final() *Error {
	f := *e
	f.act = actStop
	return &f
}

// about names the partition in an error that does not say yet what it is about.
func about(err error, topic string, partition int32) error {
	e, ok := asError(err)
	if !ok || e.Topic != "" {
		return err
	}
	named := *e
	named.Topic, named.Partition = topic, partition
	return &named
}

// asError returns the Error that err is or wraps.
func asError(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}

// retriable returns err as an Error if what failed is to be sent again.
func retriable(err error) (*Error, bool) {
	e, ok := asError(err)
	return e, ok && e.act.retried()
}
