package config

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var (
	namePattern   = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`)
	prefixPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	topicPattern  = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)
	slotPattern   = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)
)

// validator checks a configuration that has been read and filled in, and adds what it
// finds to the decoder's findings, at the place where the setting stands.
type validator struct{ decoder *decoder }

// report adds a finding at path, or at the nearest place above it that the file has.
// A place that has a finding already keeps that one: the second would only follow from it.
func (v *validator) report(code, path, message, suggestion string) {
	for _, f := range v.decoder.findings {
		if follows(f, code, path) {
			return
		}
	}
	at, ok := v.decoder.places[path]
	for p := path; !ok && p != ""; at, ok = v.decoder.places[p] {
		p = parent(p)
	}
	v.decoder.add(Finding{Code: code, Path: path, Message: message, Suggestion: suggestion}, at)
}

// follows says whether a finding at path would only be a consequence of f.
func follows(f Finding, code, path string) bool {
	switch {
	case f.Path == path:
		return true
	case f.Code == CodeWrongType:
		return f.Path == "" || strings.HasPrefix(path, f.Path+".")
	}
	return code == CodeMissing && f.Code == CodeUnknownKey && sameKey(f, path)
}

// sameKey says whether an unknown key was probably meant to be the one at path.
func sameKey(f Finding, path string) bool {
	return parent(f.Path) == parent(path) && f.Suggestion == `did you mean "`+strings.TrimPrefix(path[len(parent(path)):], ".")+`"?`
}

// parent returns the path above: a.b[0].c → a.b[0] → a.b → a → "".
func parent(path string) string {
	return path[:max(strings.LastIndexAny(path, ".["), 0)]
}

// missing reports a required key that is not there.
func (v *validator) missing(path, what string) {
	v.report(CodeMissing, path, path+" is missing", what)
}

// config checks the whole file.
func (v *validator) config(c *Config) {
	v.shared(c)
	v.listens(c)
	if len(c.Captures) == 0 && len(c.Sinks) == 0 {
		v.missing("captures", "name at least one database to tail")
	}
	for i := range c.Captures {
		v.capture(fmt.Sprintf("captures[%d]", i), &c.Captures[i])
	}
	v.distinct(c.Captures)
	v.sinks(c)
}

// shared checks what every command needs: broker and registry.
func (v *validator) shared(c *Config) {
	switch b := c.Broker; {
	case b.Embedded == nil && b.Kafka == nil:
		v.missing("broker", "write broker.embedded or broker.kafka")
	case b.Embedded != nil && b.Kafka != nil:
		v.report(CodeConflict, "broker", "broker has both embedded and kafka", "keep one")
	case b.Embedded != nil:
		v.address("broker.embedded.listen", b.Embedded.Listen, false, "listen on 127.0.0.1: the embedded broker is for one machine; use broker.kafka for others")
	default:
		v.kafka(b.Kafka)
	}
	v.registry(&c.Registry)
}

// kafka checks the connection to a cluster.
func (v *validator) kafka(k *Kafka) {
	if len(k.Brokers) == 0 {
		v.missing("broker.kafka.brokers", "name at least one host:port")
	}
	for i, b := range k.Brokers {
		if _, _, err := hostPort(b); err != nil {
			v.report(CodeInvalidValue, fmt.Sprintf("broker.kafka.brokers[%d]", i), "broker address "+err.Error(), "write host:port")
		}
	}
	if t := k.TLS; t != nil && (t.Cert == "") != (t.Key == "") {
		v.report(CodeConflict, "broker.kafka.tls", "broker.kafka.tls has only one of cert and key", "a client certificate needs both")
	}
	if s := k.SASL; s != nil {
		const at = "broker.kafka.sasl."
		if s.Mechanism == "" {
			v.missing(at+"mechanism", "plain, scram-sha-256 or scram-sha-512")
		}
		if s.User == "" {
			v.missing(at+"user", "")
		}
		if !s.Password.Set() {
			v.missing(at+"password", "write it as ${env:NAME} or ${file:/path}")
		}
	}
}

// registry checks that there is one registry.
func (v *validator) registry(r *Registry) {
	if r.URL == "" {
		v.address("registry.serve", r.Serve, r.TLS != nil && r.Password.Set(), "set registry.tls, registry.user and registry.password; or listen on 127.0.0.1")
		v.serverTLS("registry.tls", r.TLS)
		v.hosts("registry.hosts", r.Hosts)
		if !topicPattern.MatchString(r.Topic) {
			v.report(CodeInvalidValue, "registry.topic", "registry.topic cannot be a topic's name", "use up to 249 letters, digits, '.', '_' and '-'")
		}
		if (r.User != "") != r.Password.Set() {
			v.report(CodeConflict, "registry", "registry has only one of user and password", "our own registry asks for both, or for none")
		}
		v.long("registry.password", r.Password)
		return
	}
	if r.TLS != nil || len(r.Hosts) > 0 {
		v.report(CodeConflict, "registry", "registry has url and also tls or hosts, which are for our own", "keep one")
	}
	if r.Serve != "" || r.Topic != "" {
		v.report(CodeConflict, "registry", "registry has url and also serve or topic, which are for our own", "keep one")
	}
	u, err := url.Parse(r.URL)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		v.report(CodeInvalidValue, "registry.url", "registry.url is not an http or https address", "write http://host:port")
	case u.User != nil:
		v.report(CodeInvalidValue, "registry.url", "registry.url has a user in it", "write registry.user and registry.password")
	}
}

// listens checks the process's own addresses.
func (v *validator) listens(c *Config) {
	v.address("http.listen", c.HTTP.Listen, c.HTTP.TLS != nil && c.HTTP.Token.Set(), "set http.tls and http.token; or listen on 127.0.0.1")
	v.serverTLS("http.tls", c.HTTP.TLS)
	v.hosts("http.hosts", c.HTTP.Hosts)
	v.long("http.token", c.HTTP.Token)
	taken := map[string]string{}
	check := func(path, address string) {
		if _, port, err := hostPort(address); err != nil || port == 0 {
			return
		}
		if other, ok := taken[address]; ok {
			v.report(CodeConflict, path, fmt.Sprintf("%s is the same address as %s", path, other), "give each its own port")
		}
		taken[address] = path
	}
	if c.Broker.Embedded != nil {
		check("broker.embedded.listen", c.Broker.Embedded.Listen)
	}
	if c.Registry.URL == "" {
		check("registry.serve", c.Registry.Serve)
	}
	check("http.listen", c.HTTP.Listen)
}

// address checks one address. One that other machines could reach must be guarded: by TLS, and
// by asking who calls.
func (v *validator) address(path, address string, guarded bool, mend string) {
	host, _, err := hostPort(address)
	switch {
	case err != nil:
		v.report(CodeInvalidValue, path, path+" "+err.Error(), "write host:port, as 127.0.0.1:9090")
	case host != "localhost" && !net.ParseIP(host).IsLoopback() && !guarded:
		v.report(CodeNotLoopback, path, path+" would be reachable from other machines, for everybody", mend)
	}
}

// serverTLS checks that a server has both files.
func (v *validator) serverTLS(path string, t *ServerTLS) {
	if t == nil {
		return
	}
	if t.Cert == "" {
		v.missing(path+".cert", "name a PEM file")
	}
	if t.Key == "" {
		v.missing(path+".key", "name a PEM file")
	}
}

// hosts checks names that requests may call a server by.
func (v *validator) hosts(path string, names []string) {
	for i, name := range names {
		if name == "" || strings.ContainsAny(name, ":/ *") && net.ParseIP(name) == nil {
			v.report(CodeInvalidValue, fmt.Sprintf("%s[%d]", path, i), fmt.Sprintf("%s[%d] is no name of a host", path, i), "write it without scheme, port and *, as tailrace.example")
		}
	}
}

// minToken is how long a secret must be that lets others in.
const minToken = 16

func (v *validator) long(path string, s Secret) {
	if s.Set() && len(s.Reveal()) < minToken {
		v.report(CodeInvalidValue, path, fmt.Sprintf("%s is shorter than %d characters", path, minToken), "make one: openssl rand -base64 24")
	}
}

// hostPort splits an address; the port is a number.
func hostPort(address string) (string, uint16, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("is not host:port")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("has no number between 0 and 65535 as its port")
	}
	return host, uint16(n), nil
}

// capture checks one capture.
func (v *validator) capture(path string, c *Capture) {
	switch {
	case c.Name == "":
		v.missing(path+".name", "")
	case !namePattern.MatchString(c.Name):
		v.report(CodeInvalidValue, path+".name", path+".name has characters that a name cannot have", "use a-z, 0-9, - and _")
	}
	if c.Prefix != "" && !prefixPattern.MatchString(c.Prefix) {
		v.report(CodeInvalidValue, path+".prefix", path+".prefix cannot begin a topic's name", "use letters, digits, '.', '_' and '-'")
	}
	if c.Topics.Partitions < 1 {
		v.report(CodeInvalidValue, path+".topics.partitions", path+".topics.partitions is less than 1", "")
	}
	if c.Topics.Replication < 0 {
		v.report(CodeInvalidValue, path+".topics.replication", path+".topics.replication is less than 1", "")
	}
	if n := c.Backfill.Readers; n < 1 || n > 64 {
		v.report(CodeInvalidValue, path+".backfill.readers", path+".backfill.readers is not 1 to 64", "")
	}
	if c.Backfill.Rate < 0 {
		v.report(CodeInvalidValue, path+".backfill.rate", path+".backfill.rate is less than 1", "leave it out for no limit")
	}
	if c.Postgres == nil {
		v.missing(path+".postgres", "say which database to tail")
		return
	}
	before := len(v.decoder.findings)
	v.postgres(path+".postgres", c.Postgres)
	if len(v.decoder.findings) == before && c.Postgres.URL.Set() {
		v.source(path+".postgres", c)
	}
}

// source asks the source's package what it thinks of its settings. It knows no keys, so
// what can be said of one key is said before, here.
func (v *validator) source(path string, c *Capture) {
	settings := c.Source()
	err := settings.Validate()
	if err == nil {
		return
	}
	v.report(CodeInvalidValue, path, path+": "+err.Error(), hintOf(err))
}

// hintOf returns what an error advises; "" if nothing.
func hintOf(err error) string {
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		return hinted.Hint()
	}
	return ""
}

// postgres checks one PostgreSQL server's settings.
func (v *validator) postgres(path string, p *Postgres) {
	switch {
	case !p.URL.Set():
		v.missing(path+".url", "write it as ${env:NAME}, postgres://user:password@host:port/database")
	case !postgresURL(p.URL.Reveal()):
		v.report(CodeInvalidValue, path+".url", path+".url is not a PostgreSQL address", "write postgres://user:password@host:port/database")
	}
	if !slotPattern.MatchString(p.Slot) {
		v.report(CodeInvalidValue, path+".slot", path+".slot cannot be a slot's name", "use up to 63 of a-z, 0-9 and _")
	}
	if len(p.Publication) > 63 {
		v.report(CodeInvalidValue, path+".publication", path+".publication is longer than 63 bytes", "")
	}
	for i, t := range p.Tables {
		if schema, table, ok := strings.Cut(t, "."); !ok || schema == "" || table == "" {
			v.report(CodeInvalidValue, fmt.Sprintf("%s.tables[%d]", path, i), fmt.Sprintf("%q names no table", t), "write schema.table; * stands for any characters")
		}
	}
	for i := range p.Columns {
		v.columns(fmt.Sprintf("%s.columns[%d]", path, i), &p.Columns[i])
	}
}

// faulty says whether something was found at a place or below it.
func (v *validator) faulty(path string) bool {
	return slices.ContainsFunc(v.decoder.findings, func(f Finding) bool { return f.Path == path || strings.HasPrefix(f.Path, path+".") })
}

// columns checks one entry of the choice of columns.
func (v *validator) columns(path string, c *Columns) {
	if c.Table == "" {
		v.missing(path+".table", "write schema.table; * stands for any characters")
		return
	}
	for _, name := range slices.Sorted(maps.Keys(c.Mask)) {
		m, at := c.Mask[name], path+".mask."+name
		settings := m.settings()
		if v.faulty(at) {
			continue
		}
		if len(m.kinds()) != 1 {
			v.report(CodeInvalidValue, at, at+" is not one mask", "write redact, or one of hmac, truncate and constant")
		} else if err := settings.Validate(); err != nil {
			v.report(CodeInvalidValue, at, at+": "+err.Error(), hintOf(err))
		}
	}
	settings := c.settings()
	if err := settings.Validate(); err != nil && !v.faulty(path) {
		v.report(CodeInvalidValue, path, path+": "+err.Error(), hintOf(err))
	}
}

// postgresURL says whether text is a connection URL with a host.
func postgresURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "postgres" || u.Scheme == "postgresql")
}

// distinct refuses two captures that would write the same topics or read the same slot.
func (v *validator) distinct(captures []Capture) {
	taken := map[string]string{}
	check := func(path, key, what string) {
		if other, ok := taken[key]; ok {
			v.report(CodeConflict, path, path+" is the same as "+other, what)
			return
		}
		taken[key] = path
	}
	for i := range captures {
		c, path := &captures[i], fmt.Sprintf("captures[%d]", i)
		if c.Name != "" {
			check(path+".name", "name "+c.Name, "each capture has its own state")
		}
		if c.Prefix != "" && c.Prefix != c.Name {
			check(path+".prefix", "prefix "+c.Prefix, "two captures must not write the same topics")
		} else if c.Prefix != "" {
			taken["prefix "+c.Prefix] = path + ".prefix"
		}
		if p := c.Postgres; p != nil && p.URL.Set() {
			check(path+".postgres.slot", "slot "+p.Slot+" "+p.URL.Reveal(), "a slot is read by one capture")
		}
	}
}
