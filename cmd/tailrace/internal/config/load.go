package config

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"sort"
	"strings"

	yaml "github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Overrides are settings from flags or the environment; they win over the file. Empty
// fields leave the file's value.
type Overrides struct {
	Brokers     []string // takes the place of the whole broker section
	RegistryURL string   // takes the place of the whole registry section
	HTTPListen  string
	LogLevel    string
	LogFormat   string
}

// Load reads, completes and validates the file. An unusable one is an *Error with every
// finding; a file that cannot be read is another error.
func Load(file string, o Overrides) (*Config, error) {
	src, err := os.ReadFile(file)
	if err != nil {
		return nil, &missingFile{err}
	}
	return parse(file, src, o, system())
}

// FromOverrides makes a configuration without a file, for commands that need no more
// than a broker and a registry.
func FromOverrides(o Overrides) (*Config, error) {
	c, d := &Config{}, newDecoder(references{})
	o.apply(c, d.places)
	c.fill()
	v := validator{decoder: d}
	v.shared(c)
	return c, finish("flags", nil, d)
}

// Parse is Load for the text of a configuration whose references to the environment env
// answers; it reads no file. name stands for the file in errors.
func Parse(name string, src []byte, env func(string) (string, bool)) (*Config, error) {
	none := func(string) ([]byte, error) { return nil, os.ErrNotExist }
	return parse(name, src, Overrides{}, references{env: env, file: none})
}

// parse is Load for a file's bytes.
func parse(file string, src []byte, o Overrides, refs references) (*Config, error) {
	d := newDecoder(refs)
	lines := splitLines(string(src))
	c := &Config{}
	body, fault := body(src)
	switch {
	case fault != nil:
		d.findings = append(d.findings, *fault)
		hideLine(lines, fault)
	default:
		d.collectAnchors(body)
		d.value(body, field{v: reflect.ValueOf(c).Elem()})
		o.apply(c, d.places)
		c.fill()
		v := validator{decoder: d}
		v.config(c)
	}
	return c, finish(file, lines, d)
}

// newDecoder returns an empty decoder.
func newDecoder(refs references) *decoder {
	return &decoder{refs: refs, places: map[string]*token.Token{}, anchors: map[string]ast.Node{}}
}

// finish makes the error of what was found, or nil.
func finish(file string, lines []string, d *decoder) error {
	if len(d.findings) == 0 {
		return nil
	}
	sort.SliceStable(d.findings, func(i, j int) bool {
		a, b := d.findings[i], d.findings[j]
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Column < b.Column
	})
	excerpts(lines, d.spans, d.findings)
	return &Error{File: file, Findings: d.findings, lines: lines}
}

// body parses src and returns its one document, or what is wrong with it.
func body(src []byte) (ast.Node, *Finding) {
	f, err := parser.ParseBytes(src, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, syntaxFinding(err)
	}
	var docs []ast.Node
	for _, doc := range f.Docs {
		if doc.Body != nil && doc.Body.Type() != ast.CommentType {
			docs = append(docs, doc.Body)
		}
	}
	switch len(docs) {
	case 0:
		return nil, &Finding{Code: CodeMissing, Message: "the file is empty", Suggestion: "it needs broker and captures"}
	case 1:
		return docs[0], nil
	}
	at := start(docs[1]).Position
	return nil, &Finding{Code: CodeSyntax, Line: at.Line, Column: at.Column, Message: "the file holds more than one document", Suggestion: "keep one"}
}

// syntaxFinding translates the parser's error.
func syntaxFinding(err error) *Finding {
	var se *yaml.SyntaxError
	if !errors.As(err, &se) {
		return &Finding{Code: CodeSyntax, Message: "the file is not YAML: " + err.Error()}
	}
	f := &Finding{Code: CodeSyntax, Message: "the file is not YAML: " + se.GetMessage()}
	if t := se.GetToken(); t != nil {
		f.Line, f.Column = t.Position.Line, max(t.Position.Column, 1)
	}
	return f
}

// hideLine cuts the value from the line of a syntax error: without a tree nobody knows
// what it holds.
func hideLine(lines []string, f *Finding) {
	if f.Line < 1 || f.Line > len(lines) {
		return
	}
	if key, _, ok := strings.Cut(lines[f.Line-1], ":"); ok {
		lines[f.Line-1] = key + ": …"
	}
	f.Column = min(f.Column, len([]rune(lines[f.Line-1]))+1)
}

// collectAnchors notes what each anchor names.
func (d *decoder) collectAnchors(n ast.Node) {
	ast.Walk(visitor(func(n ast.Node) {
		if a, ok := n.(*ast.AnchorNode); ok {
			d.anchors[a.Name.GetToken().Value] = a.Value
		}
	}), n)
}

// apply lays the overrides over c. What they set stands nowhere in the file: its place is
// noted as nil.
func (o *Overrides) apply(c *Config, places map[string]*token.Token) {
	if len(o.Brokers) > 0 {
		kafka := c.Broker.Kafka
		if kafka == nil {
			kafka = &Kafka{}
		}
		kafka.Brokers = o.Brokers
		c.Broker = Broker{Kafka: kafka}
		for i := range o.Brokers {
			places[fmt.Sprintf("broker.kafka.brokers[%d]", i)] = nil
		}
	}
	if o.RegistryURL != "" {
		c.Registry.URL, c.Registry.Serve, c.Registry.Topic = o.RegistryURL, "", ""
		places["registry.url"] = nil
	}
	for _, s := range []struct {
		path, value string
		to          *string
	}{{"http.listen", o.HTTPListen, &c.HTTP.Listen}, {"log.level", o.LogLevel, &c.Log.Level}, {"log.format", o.LogFormat, &c.Log.Format}} {
		if s.value != "" {
			*s.to, places[s.path] = s.value, nil
		}
	}
}

// missingFile is a configuration file that cannot be read.
type missingFile struct{ err error }

// Error implements error.
func (e *missingFile) Error() string { return fmt.Sprintf("read configuration: %v", e.err) }

// Unwrap gives the cause.
func (e *missingFile) Unwrap() error { return e.err }

// Hint says what to do.
func (e *missingFile) Hint() string {
	return "name the file with -f, or set TAILRACE_FILE"
}

// Usage says that the command was called wrongly.
func (e *missingFile) Usage() bool { return true }
