package registry

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	mediaType       = "application/vnd.schemaregistry.v1+json"
	defaultTimeout  = 10 * time.Second
	maxAnswer       = 32 << 20 // bytes of an answer's body
	maxErrorMessage = 4 << 10  // bytes of an error message that are kept
)

// ClientConfig says where a registry is and how to speak to it.
type ClientConfig struct {
	URL            string        // http or https, a path prefix is allowed; never with a user in it
	User, Password string        // HTTP basic authentication; none if both are empty
	TLS            *tls.Config   // nil: the system's roots. Below TLS 1.2 is refused in any case
	Timeout        time.Duration // for one request with its answer; 0: 10 s
}

// Client asks a schema registry. It may be used by many goroutines at once. It does not
// repeat requests: who calls knows how long it may wait.
type Client struct {
	base           string // without a slash at the end
	user, password string
	timeout        time.Duration
	http           *http.Client
	transport      *http.Transport

	registered cache[subjectSchema, int32]
	schemas    cache[int32, string]
}

type subjectSchema struct{ subject, schema string }

// Version is one version of a subject.
type Version struct {
	Subject string `json:"subject"`
	ID      int32  `json:"id"`
	Version int    `json:"version"`
	Schema  string `json:"schema"`
}

// NewClient checks cfg and makes a client. It does not connect; see Ping.
func NewClient(cfg ClientConfig) (*Client, error) {
	base, err := baseURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	if strings.Contains(cfg.User, ":") {
		return nil, errors.New("registry user: a user name cannot contain a colon")
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 4
	t.MaxResponseHeaderBytes = 64 << 10
	t.TLSClientConfig = &tls.Config{}
	if cfg.TLS != nil {
		t.TLSClientConfig = cfg.TLS.Clone()
	}
	if t.TLSClientConfig.MinVersion < tls.VersionTLS12 {
		t.TLSClientConfig.MinVersion = tls.VersionTLS12
	}
	c := &Client{base: base, user: cfg.User, password: cfg.Password, timeout: cfg.Timeout, transport: t}
	if c.timeout <= 0 {
		c.timeout = defaultTimeout
	}
	// A redirect would carry credentials to an address that nobody configured.
	c.http = &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	return c, nil
}

// baseURL checks a registry's URL. Its errors do not repeat the URL, which may hold a
// password.
func baseURL(raw string) (string, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return "", errors.New("registry URL cannot be read as a URL")
	case u.User != nil:
		return "", errors.New("registry URL holds a user or password; configure them apart from the URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return "", errors.New("registry URL must begin with http:// or https://")
	case u.Host == "":
		return "", errors.New("registry URL names no host")
	case u.RawQuery != "" || u.Fragment != "":
		return "", errors.New("registry URL must have neither a query nor a fragment")
	}
	return strings.TrimRight(u.Scheme+"://"+u.Host+u.EscapedPath(), "/"), nil
}

// Close gives up idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Ping asks for the compatibility level, which needs the registry's store to be readable
// and the credentials to be right.
func (c *Client) Ping(ctx context.Context) error {
	var answer struct {
		Level Level `json:"compatibilityLevel"`
	}
	r := request{op: "reach the schema registry", method: http.MethodGet, path: "/config"}
	if err := c.do(ctx, r, &answer); err != nil {
		return err
	}
	if answer.Level == "" {
		return r.unreadable(errors.New("it tells no compatibility level"))
	}
	return nil
}

// Register makes sure that schema is a version of subject, and returns its id, after
// having compared what stands under it. An answer is remembered. A schema that does not fit the earlier
// versions is an *Error with status 409; see Incompatible.
func (c *Client) Register(ctx context.Context, subject, schema string) (id int32, err error) {
	k := subjectSchema{subject, schema}
	if id, ok := c.registered.get(k); ok {
		return id, nil
	}
	var answer struct {
		ID int32 `json:"id"`
	}
	r := request{op: "register schema", subject: subject, method: http.MethodPost,
		path: "/subjects/" + url.PathEscape(subject) + "/versions", schema: schema}
	if err := c.do(ctx, r, &answer); err != nil {
		return 0, err
	}
	if answer.ID <= 0 {
		return 0, r.unreadable(fmt.Errorf("id %d is not a schema id", answer.ID))
	}
	if err := c.verify(ctx, r, answer.ID); err != nil {
		return 0, err
	}
	c.registered.put(k, answer.ID, len(subject)+len(schema))
	return answer.ID, nil
}

// SchemaByID returns the schema with this id, as the registry keeps it. Answers are
// remembered.
func (c *Client) SchemaByID(ctx context.Context, id int32) (string, error) {
	if s, ok := c.schemas.get(id); ok {
		return s, nil
	}
	var answer struct {
		Schema     string          `json:"schema"`
		SchemaType string          `json:"schemaType"`
		References json.RawMessage `json:"references"`
	}
	r := request{op: fmt.Sprintf("fetch schema %d", id), method: http.MethodGet,
		path: "/schemas/ids/" + strconv.Itoa(int(id))}
	if err := c.do(ctx, r, &answer); err != nil {
		return "", err
	}
	switch {
	case answer.SchemaType != "" && answer.SchemaType != typeAvro:
		return "", r.unreadable(fmt.Errorf("schema type is %.32q, want AVRO", answer.SchemaType))
	case !isEmpty(answer.References):
		return "", r.unreadable(errors.New("schema refers to other schemas, which is not supported"))
	case answer.Schema == "":
		return "", r.unreadable(errors.New("no schema in the answer"))
	}
	c.schemas.put(id, answer.Schema, len(answer.Schema))
	return answer.Schema, nil
}

// Lookup returns the id and version under which schema stands in subject, or an error
// that NotFound recognises.
func (c *Client) Lookup(ctx context.Context, subject, schema string) (id int32, version int, err error) {
	var v Version
	err = c.do(ctx, request{op: "look up schema", subject: subject, method: http.MethodPost,
		path: "/subjects/" + url.PathEscape(subject), schema: schema}, &v)
	return v.ID, v.Version, err
}

// Subjects lists the subjects, sorted as the registry does.
func (c *Client) Subjects(ctx context.Context) (subjects []string, err error) {
	err = c.do(ctx, request{op: "list subjects", method: http.MethodGet, path: "/subjects"}, &subjects)
	return subjects, err
}

// Versions lists the versions of a subject, ascending.
func (c *Client) Versions(ctx context.Context, subject string) (versions []int, err error) {
	err = c.do(ctx, request{op: "list versions", subject: subject, method: http.MethodGet,
		path: "/subjects/" + url.PathEscape(subject) + "/versions"}, &versions)
	return versions, err
}

// Latest returns the last version of a subject.
func (c *Client) Latest(ctx context.Context, subject string) (v Version, err error) {
	err = c.do(ctx, request{op: "fetch latest version", subject: subject, method: http.MethodGet,
		path: "/subjects/" + url.PathEscape(subject) + "/versions/latest"}, &v)
	return v, err
}

// Compatible asks whether schema could be registered under subject, and why not. No
// reasons and no error: it could.
func (c *Client) Compatible(ctx context.Context, subject, schema string) (reasons []string, err error) {
	var answer struct {
		Compatible bool     `json:"is_compatible"`
		Messages   []string `json:"messages"`
	}
	r := request{op: "check compatibility", subject: subject, method: http.MethodPost,
		path: "/compatibility/subjects/" + url.PathEscape(subject) + "/versions?verbose=true", schema: schema}
	if err := c.do(ctx, r, &answer); err != nil {
		return nil, err
	}
	if !answer.Compatible && len(answer.Messages) == 0 {
		return []string{"the registry gave no reason"}, nil
	}
	if answer.Compatible {
		return nil, nil
	}
	return answer.Messages, nil
}

// Level returns the compatibility level that holds for subject, or the global one for "".
func (c *Client) Level(ctx context.Context, subject string) (Level, error) {
	var answer struct {
		Level Level `json:"compatibilityLevel"`
	}
	err := c.do(ctx, request{op: "read compatibility level", subject: subject, method: http.MethodGet,
		path: configPath(subject) + "?defaultToGlobal=true"}, &answer)
	return answer.Level, err
}

// SetLevel sets the compatibility level of subject, or the global one for "".
func (c *Client) SetLevel(ctx context.Context, subject string, level Level) error {
	return c.do(ctx, request{op: "set compatibility level", subject: subject, method: http.MethodPut,
		path: configPath(subject), body: map[string]Level{"compatibility": level}}, nil)
}

// SubjectLevel returns the compatibility level that holds for a subject, and whether it is the
// subject's own.
func (c *Client) SubjectLevel(ctx context.Context, subject string) (level Level, own bool, err error) {
	var answer struct {
		Level Level `json:"compatibilityLevel"`
	}
	err = c.do(ctx, request{op: "read compatibility level", subject: subject, method: http.MethodGet, path: configPath(subject)}, &answer)
	if NotFound(err) {
		level, err = c.Level(ctx, subject)
		return level, false, err
	}
	return answer.Level, err == nil, err
}

// ClearLevel takes the compatibility level of a subject away, so that the global one holds.
// One that has none is an error, see NotFound.
func (c *Client) ClearLevel(ctx context.Context, subject string) error {
	return c.do(ctx, request{op: "clear compatibility level", subject: subject, method: http.MethodDelete, path: configPath(subject)}, nil)
}

func configPath(subject string) string {
	if subject == "" {
		return "/config"
	}
	return "/config/" + url.PathEscape(subject)
}

// request is one question to a registry.
type request struct {
	op, subject string // for errors
	method      string
	path        string // escaped, with its query
	schema      string // if not empty, the body is {"schema":…}
	body        any    // else, if not nil, the body
}

func (r *request) unreadable(err error) *Error {
	return &Error{Op: r.op, Subject: r.subject, Status: http.StatusOK, Err: fmt.Errorf("read the answer: %w", err)}
}

// do asks and reads the answer into out, unless it is nil. Its errors are *Error.
func (c *Client) do(ctx context.Context, r request, out any) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := c.newRequest(ctx, r)
	if err != nil {
		return &Error{Op: r.op, Subject: r.subject, Err: err}
	}
	res, err := c.http.Do(req)
	if err != nil {
		return &Error{Op: r.op, Subject: r.subject, Err: cause(ctx, err)}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return &Error{Op: r.op, Subject: r.subject, Err: cause(ctx, err)}
	case len(body) > maxAnswer:
		return r.unreadable(fmt.Errorf("answer is larger than %d bytes", maxAnswer))
	case res.StatusCode != http.StatusOK:
		return r.refused(res.StatusCode, body)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return r.unreadable(err)
	}
	return nil
}

func (c *Client) newRequest(ctx context.Context, r request) (*http.Request, error) {
	if r.schema != "" {
		r.body = map[string]string{"schema": r.schema}
	}
	var body io.Reader
	if r.body != nil {
		b, err := json.Marshal(r.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, c.base+r.path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", mediaType)
	}
	req.Header.Set("Accept", mediaType+", application/vnd.schemaregistry+json, application/json")
	if c.user != "" || c.password != "" {
		req.SetBasicAuth(c.user, c.password)
	}
	return req, nil
}

// refused makes the error for an answer other than 200. A body that is not the registry's
// JSON, a proxy's page say, is not repeated.
func (r *request) refused(status int, body []byte) *Error {
	e := &Error{Op: r.op, Subject: r.subject, Status: status}
	var answer struct {
		Code    int    `json:"error_code"`
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &answer) == nil {
		e.Code, e.Message = answer.Code, clip(answer.Message, maxErrorMessage)
	}
	return e
}

// clip cuts s to at most n bytes, between characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
