package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Codes of the registry's API. The HTTP status of an answer is the first three digits.
const (
	codeSubjectNotFound       = 40401
	codeVersionNotFound       = 40402
	codeSchemaNotFound        = 40403
	codeSubjectSoftDeleted    = 40404
	codeSubjectNotSoftDeleted = 40405
	codeVersionSoftDeleted    = 40406
	codeVersionNotSoftDeleted = 40407
	codeNoSubjectConfig       = 40408
	codeNoSubjectMode         = 40409
	codeIncompatible          = 40901
	codeInvalidSchema         = 42201
	codeInvalidVersion        = 42202
	codeInvalidLevel          = 42203
	codeInvalidMode           = 42204
	codeNotPermitted          = 42205
	codeReferenced            = 42206
	codeInvalidSubject        = 42208
	codeSchemaTooLarge        = 42209
	codeStore                 = 50001
	codeTimeout               = 50002
	codeNoLeader              = 50004
)

// ErrFenced is what a Log's Append returns (wrapped or not) when another writer has taken
// the log over. A Server that meets it writes no more.
var ErrFenced = errors.New("another registry has taken the schemas log over")

// ErrTooLarge is what a Log's Append returns (wrapped or not) when the log does not take an
// entry for its size. Nothing was written.
var ErrTooLarge = errors.New("entry is larger than the schemas log takes")

// Error is a request to a registry that did not succeed.
type Error struct {
	Op      string // what was asked, such as "register schema"
	Subject string // the subject it was asked for; empty if none
	Status  int    // HTTP status of the answer; 0: no answer came, or not all of it
	Code    int    // the registry's error_code; 0: the answer had none
	Message string // the registry's message, cut to a bounded length
	Err     error  // why no answer came, or why a good one cannot be used; else nil

	misled bool // the answer is a registry's, but wrong
}

// Error describes the failure. It never holds credentials.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Subject != "" {
		fmt.Fprintf(&b, " for subject %q", e.Subject)
	}
	if e.Status != 0 {
		fmt.Fprintf(&b, ": registry answered %d", e.Status)
		if e.Code != 0 && e.Code != e.Status {
			fmt.Fprintf(&b, " (%d)", e.Code)
		}
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap returns the cause, if no answer came.
func (e *Error) Unwrap() error { return e.Err }

// Fatal says that the same request will fail again until a person changes something:
// refusals by the registry, wrong ids, certificates that do not verify. What did not reach the
// registry, its own faults, and a schema that it does not know (yet) are not fatal.
func (e *Error) Fatal() bool {
	switch {
	case e.misled:
		return true
	case e.Status == 0:
		return certificateRefused(e.Err)
	case e.Status == http.StatusRequestTimeout, e.Status == http.StatusTooManyRequests:
		return false
	case e.Status == http.StatusNotFound && e.Code > 1000:
		return false
	}
	return e.Status >= 300 && e.Status < 500
}

// Hint says what the operator can do.
func (e *Error) Hint() string {
	switch {
	case e.misled:
		return "the registry gives ids that do not stand for what was registered; check whether two registries write one log, and compare GET /schemas/ids with the subjects"
	case e.Status == http.StatusOK:
		return "what answers at the registry's URL may be no schema registry, or one that keeps more than Avro; check the URL"
	case e.Status == http.StatusConflict:
		return e.conflictHint()
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden:
		return "check the user and password configured for the schema registry, and that this user may read and register schemas"
	case e.Code == codeNotPermitted:
		return "the registry does not let this subject be written; see its mode (GET /mode)"
	case e.Status == http.StatusUnprocessableEntity:
		return "the registry refuses the schema or the request as such; its message says why"
	case e.Status == http.StatusNotFound && e.Code <= 1000:
		return "check the URL of the schema registry: what answers there does not serve the registry's API"
	case e.Status >= 300 && e.Status < 400:
		return "the registry's URL redirects; configure the address that it redirects to"
	case e.Status >= 500:
		return "the schema registry has a fault; see its log"
	case certificateRefused(e.Err):
		return "the registry's certificate does not verify; check the CA and the server name configured for it"
	case e.Status == 0:
		return "check that the schema registry runs and can be reached from here"
	}
	return ""
}

func (e *Error) conflictHint() string {
	return fmt.Sprintf("the new schema of subject %q cannot replace the last one: %s; "+
		"either revert the change of the table, or check that every reader of the topic can take the new schema, "+
		"and set the compatibility of the subject to NONE for it (PUT /config/%s {\"compatibility\":\"NONE\"})",
		e.Subject, orElse(e.Message, "the registry gave no reason"), url.PathEscape(e.Subject))
}

// Incompatible says that err is a registry's refusal of a schema that does not fit the
// subject's earlier ones.
func Incompatible(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == http.StatusConflict
}

// NotFound says that err is a registry's answer that it knows no such subject, version or
// schema.
func NotFound(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == http.StatusNotFound && e.Code > 1000
}

func certificateRefused(err error) bool {
	var verify *tls.CertificateVerificationError
	return errors.As(err, &verify)
}

// cause strips what net/http wraps around a transport error: the URL adds nothing, and a
// query or path may hold more than a log should. ctx's own error wins over its symptoms.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("no answer in time: %w", context.Cause(ctx))
	}
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// fault is a request that the server refuses, or cannot serve: the code and message of
// the answer.
type fault struct {
	code    int // five digits, or an HTTP status
	message string
}

func (f *fault) Error() string { return f.message }

func (f *fault) status() int {
	if f.code >= 10000 {
		return f.code / 100
	}
	return f.code
}

func faultf(code int, format string, args ...any) *fault {
	return &fault{code: code, message: fmt.Sprintf(format, args...)}
}
