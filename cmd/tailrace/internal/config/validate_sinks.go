package config

import (
	"fmt"

	"github.com/tailrace/tailrace/sinks"
)

// sinks checks every sink, and that no two share positions.
func (v *validator) sinks(c *Config) {
	taken := map[string]string{}
	for i := range c.Sinks {
		s, path := &c.Sinks[i], fmt.Sprintf("sinks[%d]", i)
		v.sink(path, s)
		v.from(path+".from", s.From, c)
		if other, ok := taken[s.Name]; ok {
			v.report(CodeConflict, path+".name", path+".name is the same as "+other, "each sink has its own positions")
		} else if s.Name != "" {
			taken[s.Name] = path + ".name"
		}
	}
}

// sink checks one sink.
func (v *validator) sink(path string, s *Sink) {
	switch {
	case s.Name == "":
		v.missing(path+".name", "")
	case !namePattern.MatchString(s.Name):
		v.report(CodeInvalidValue, path+".name", path+".name has characters that a name cannot have", "use a-z, 0-9, - and _")
	}
	switch {
	case s.Postgres != nil && s.Webhook != nil:
		v.report(CodeConflict, path, path+" has both postgres and webhook", "make two sinks of it")
	case s.Postgres != nil:
		v.target(path+".postgres", s.Postgres)
	case s.Webhook != nil:
		v.webhook(path, s)
	default:
		v.missing(path+".postgres", "say where changes go: postgres or webhook")
	}
	v.deadLetters(path, s)
}

// deadLetters checks what becomes of changes that are refused.
func (v *validator) deadLetters(path string, s *Sink) {
	if s.DeadLetters == string(sinks.Park) && s.Mode == string(sinks.Transactions) {
		v.report(CodeConflict, path+".dead_letters", path+" parks dead letters, but applies whole transactions, of which it cannot leave a row out", "choose mode: keys, or dead_letters: stop")
	}
	if s.MaxDeadLetters < 1 {
		v.report(CodeInvalidValue, path+".max_dead_letters", path+".max_dead_letters is below 1", "leave it out, or give how many letters may be parked")
	}
}

// target checks a PostgreSQL database that is written to.
func (v *validator) target(path string, p *Target) {
	switch {
	case !p.URL.Set():
		v.missing(path+".url", "write it as ${env:NAME}, postgres://user:password@host:port/database")
	case !postgresURL(p.URL.Reveal()):
		v.report(CodeInvalidValue, path+".url", path+".url is not a PostgreSQL address", "write postgres://user:password@host:port/database")
	}
	if len(p.Schema) > 63 {
		v.report(CodeInvalidValue, path+".schema", path+".schema is longer than 63 bytes", "")
	}
}

// webhook checks an address that changes are delivered to. What its package finds stands
// under the keys that it has here.
func (v *validator) webhook(path string, s *Sink) {
	if s.Mode == string(sinks.Transactions) {
		v.report(CodeInvalidValue, path+".mode", path+".mode cannot be transactions: HTTP cannot take a whole source transaction at once", "leave it out")
	}
	path += ".webhook"
	w := s.Webhook
	if (w.Cert == "") != (w.Key == "") {
		v.report(CodeConflict, path, path+" has only one of cert and key", "a client certificate needs both")
	}
	settings := w.Settings()
	for _, p := range settings.Problems() {
		at := path + "." + p.Field
		if p.Field == "url" && !w.URL.Set() {
			v.missing(at, p.Hint)
			continue
		}
		v.report(CodeInvalidValue, at, at+" "+p.Message, p.Hint)
	}
}

// from checks whose changes a sink applies. On the embedded broker nobody but this
// process's captures writes.
func (v *validator) from(path, from string, c *Config) {
	var names []string
	for i := range c.Captures {
		if one := &c.Captures[i]; from != "" && (one.Name == from || one.Prefix == from) {
			return
		}
		names = append(names, c.Captures[i].Name)
	}
	switch {
	case from == "":
		v.missing(path, "name a capture")
	case !prefixPattern.MatchString(from):
		v.report(CodeInvalidValue, path, path+" cannot begin a topic's name", "use a capture's name, or letters, digits, '.', '_' and '-'")
	case c.Broker.Embedded != nil:
		v.report(CodeInvalidValue, path, fmt.Sprintf("no capture is called %q, and only captures of this file write to the embedded broker", from), didYouMean(from, names))
	}
}
