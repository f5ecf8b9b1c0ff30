package webhook

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tailrace/tailrace/sinks"
)

// Mode is how an event is put into a request.
type Mode string

// The modes of CloudEvents' HTTP protocol binding.
const (
	Binary     Mode = "binary"     // the attributes in headers ce-…, the data as body
	Structured Mode = "structured" // all of it in the body
)

// The defaults of a Config.
const (
	DefaultConcurrency = 8
	DefaultTimeout     = 30 * time.Second
)

// The bounds of a Config.
const (
	MaxConcurrency = 256
	MaxBatch       = 1000
	MaxTimeout     = 10 * time.Minute
)

// Config is what a sink runs with.
type Config struct {
	Name        string
	URL         string            // a template, see doc.go
	Headers     map[string]string // templates
	Secrets     []string          // that requests are signed with; the first is the newest
	Mode        Mode              // empty: Binary
	Concurrency int               // requests at the same time; 0: DefaultConcurrency
	Batch       int               // events in one request at most; 0 and 1: each by itself
	Timeout     time.Duration     // of a request, its answer included; 0: DefaultTimeout
	Allow       []string          // address ranges that may be connected to although they are not on the Internet
	TLS         *tls.Config       // nil: the system's authorities
	Positions   *sinks.Positions
	UserAgent   string       // empty: tailrace
	Log         *slog.Logger // nil: silent
}

// Problem is one thing that is wrong with a Config.
type Problem struct {
	Field   string // as in a configuration file: url, headers.NAME, secrets[1]
	Message string // follows the field's name
	Hint    string
}

// reserved are headers that the sink or HTTP itself writes.
var reserved = []string{"connection", "content-encoding", "content-length", "content-type", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "user-agent"}

// headerTemplate is a header that is sent with each request.
type headerTemplate struct {
	name  string
	value template
}

// compiled is what a Config comes to.
type compiled struct {
	url     template
	base    *url.URL // scheme and host of all addresses
	headers []headerTemplate
	keys    [][]byte
	guard   guard
}

// Problems returns everything that is wrong with the settings that a person wrote, in no
// particular order. It shows none of the secret ones: URL, Headers, Secrets.
func (c *Config) Problems() []Problem {
	_, problems := c.compile()
	return problems
}

// compile reads the templates, secrets and ranges.
func (c *Config) compile() (*compiled, []Problem) {
	var out compiled
	var problems []Problem
	report := func(field, message, hint string) { problems = append(problems, Problem{field, message, hint}) }
	for i, s := range c.Secrets {
		key, err := parseSecret(s)
		if err != nil {
			report(fmt.Sprintf("secrets[%d]", i), err.Error(), "make one: echo whsec_$(openssl rand -base64 32)")
		}
		out.keys = append(out.keys, key)
	}
	for i, a := range c.Allow {
		p, err := netip.ParsePrefix(a)
		switch {
		case err != nil:
			report(fmt.Sprintf("allow[%d]", i), "is not a range of addresses", "write it as 10.1.2.0/24, one address as 10.1.2.3/32")
		case p.Addr().Is4In6():
			report(fmt.Sprintf("allow[%d]", i), "is an IPv4 range in IPv6's form", "write it as IPv4")
		default:
			out.guard.allow = append(out.guard.allow, p.Masked())
		}
	}
	c.compileURL(&out, report)
	c.compileHeaders(&out, report)
	c.bounds(report)
	return &out, problems
}

func (c *Config) compileURL(out *compiled, report func(field, message, hint string)) {
	if c.URL == "" {
		report("url", "is missing", "write https://host/path; {after.COLUMN} and {key.COLUMN} stand for values in path and query")
		return
	}
	var err error
	if out.url, out.base, err = parseURL(c.URL); err != nil {
		hint := "write https://host/path; {after.COLUMN} and {key.COLUMN} stand for values in path and query"
		if errors.Is(err, errUser) {
			hint = "write the header authorization under headers"
		}
		report("url", err.Error(), hint)
		return
	}
	out.guard.plain = out.base.Scheme == "http"
	if out.guard.plain && len(c.Allow) == 0 {
		report("url", "is http, and everybody on the way could read and change what is sent", "write https; or allow the address: allow: [\"127.0.0.1/32\"]")
	}
	if addr, err := netip.ParseAddr(out.base.Hostname()); err == nil && len(out.guard.allow) == len(c.Allow) {
		var b *blocked
		if errors.As(out.guard.check(addr), &b) && (len(c.Allow) > 0 || !out.guard.plain) {
			report("url", "names an address that is "+b.why, "if it is meant, add it to allow")
		}
	}
	if c.Batch > 1 && !out.url.fixed() {
		report("batch", "is not possible with a template in url: the events of a batch have one address", "leave out batch, or the template")
	}
}

func (c *Config) compileHeaders(out *compiled, report func(field, message, hint string)) {
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		field, lower := "headers."+name, strings.ToLower(name)
		if !isToken(name) {
			report(field, "cannot be a header's name", "use letters, digits and -")
			continue
		}
		if slices.Contains(reserved, lower) || strings.HasPrefix(lower, "ce-") || strings.HasPrefix(lower, "webhook-") {
			report(field, "is a header that the sink writes itself", "choose another name")
			continue
		}
		t, err := parseTemplate(c.Headers[name], inHeader)
		if err != nil {
			report(field, err.Error(), "{after.COLUMN} and {key.COLUMN} stand for values")
			continue
		}
		for i := range t {
			if strings.ContainsFunc(t[i].literal, func(r rune) bool { return r < ' ' && r != '\t' || r > '~' }) {
				report(field, "has characters that a header cannot have", "use printable ASCII")
				break
			}
		}
		if c.Batch > 1 && !t.fixed() {
			report(field, "has a template, but the events of a batch have one header", "leave out batch, or the template")
		}
		out.headers = append(out.headers, headerTemplate{name, t})
	}
}

func (c *Config) bounds(report func(field, message, hint string)) {
	if c.Mode != "" && c.Mode != Binary && c.Mode != Structured {
		report("mode", "is neither binary nor structured", "")
	}
	if c.Mode == Binary && c.Batch > 1 {
		report("mode", "cannot be binary with batch: a batch is structured events", "leave out one of the two")
	}
	if c.Concurrency < 0 || c.Concurrency > MaxConcurrency {
		report("concurrency", fmt.Sprintf("is not between 1 and %d", MaxConcurrency), "")
	}
	if c.Batch < 0 || c.Batch > MaxBatch {
		report("batch", fmt.Sprintf("is not between 1 and %d", MaxBatch), "")
	}
	if c.Timeout < 0 || c.Timeout > MaxTimeout {
		report("timeout", fmt.Sprintf("is not between 0 and %v", MaxTimeout), "")
	}
}

// isToken says whether text is a token of RFC 9110, as names of headers are.
func isToken(text string) bool {
	for i := range len(text) {
		b := text[i]
		switch {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', strings.IndexByte("!#$%&'*+-.^_`|~", b) >= 0:
		default:
			return false
		}
	}
	return text != ""
}
