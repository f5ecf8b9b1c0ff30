package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// decoder reads a YAML tree into Go values and collects mistakes instead of stopping.
type decoder struct {
	refs     references
	findings []Finding
	spans    []span                  // what an excerpt must not show
	places   map[string]*token.Token // configuration path → where it stands
	anchors  map[string]ast.Node
}

// field is a place to write to: a value, its path, and what its struct tag says.
type field struct {
	v    reflect.Value
	path string
	enum []string
}

var (
	secretType      = reflect.TypeFor[Secret]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// value reads n into f.
func (d *decoder) value(n ast.Node, f field) {
	n = unsplit(d.resolve(n))
	d.places[f.path] = start(n)
	switch {
	case f.v.Kind() == reflect.Pointer:
		p := reflect.New(f.v.Type().Elem())
		before := len(d.findings)
		d.value(n, field{p.Elem(), f.path, f.enum})
		if len(d.findings) == before || p.Elem().Kind() == reflect.Struct {
			f.v.Set(p)
		}
	case reflect.PointerTo(f.v.Type()).Implements(textUnmarshaler):
		d.scalar(n, f)
	case d.word(n, f):
	case f.v.Kind() == reflect.Struct:
		d.mapping(n, f)
	case f.v.Kind() == reflect.Slice:
		d.list(n, f)
	case f.v.Kind() == reflect.Map:
		d.stringMap(n, f)
	default:
		d.scalar(n, f)
	}
}

// start is the token at which a node begins: a block mapping's is its first key.
func start(n ast.Node) *token.Token {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return m.Values[0].Key.GetToken()
	}
	return n.GetToken()
}

// resolve looks through anchors, aliases and tags.
func (d *decoder) resolve(n ast.Node) ast.Node {
	for range 100 { // an alias of an alias; bounded, for an alias of itself
		switch t := n.(type) {
		case *ast.AnchorNode:
			n = t.Value
		case *ast.TagNode:
			n = t.Value
		case *ast.AliasNode:
			to, ok := d.anchors[t.Value.GetToken().Value]
			if !ok {
				return n
			}
			n = to
		default:
			return n
		}
	}
	return n
}

// unsplit mends what the parser does to a plain a:b in a flow sequence in a flow mapping:
// it takes it for a mapping, though YAML wants a space after the colon there.
func unsplit(n ast.Node) ast.Node {
	entries, ok := pairs(n)
	if m, isFlow := n.(*ast.MappingNode); !ok || len(entries) != 1 || isFlow && m.IsFlowStyle {
		return n
	}
	key, value := entries[0].Key.GetToken(), entries[0].Value.GetToken()
	switch entries[0].Value.(type) {
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
	default:
		return n
	}
	if quoted(key) || quoted(value) ||
		key.Position.Line != value.Position.Line || key.Position.Column+width(key)+1 != value.Position.Column {
		return n
	}
	text := key.Value + ":" + value.Value
	return ast.String(token.New(text, text, key.Position))
}

// quoted says whether a scalar was written in quotes.
func quoted(t *token.Token) bool {
	return t.Type == token.SingleQuoteType || t.Type == token.DoubleQuoteType
}

// pairs returns a mapping's entries.
func pairs(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch t := n.(type) {
	case *ast.MappingNode:
		return t.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{t}, true
	}
	return nil, false
}

// worded is a struct that can be written as one word, too.
type worded interface{ word(text string) bool }

// word reads one word into a struct that has such a form.
func (d *decoder) word(n ast.Node, f field) bool {
	w, ok := f.v.Addr().Interface().(worded)
	if !ok {
		return false
	}
	text, ok := n.(*ast.StringNode)
	return ok && w.word(text.Value)
}

// mapping reads a mapping into a struct; a key without a field is a finding.
func (d *decoder) mapping(n ast.Node, f field) {
	entries, ok := pairs(n)
	if !ok {
		d.wrongType(n, f, "a mapping")
		return
	}
	fields, names := structFields(f.v)
	seen := map[string]bool{}
	for _, e := range entries {
		key := e.Key.GetToken()
		i, known := fields[key.Value]
		switch {
		case !known:
			d.unknownKey(e, f, names)
		case seen[key.Value]:
			d.add(Finding{Code: CodeDuplicateKey, Path: join(f.path, key.Value), Message: fmt.Sprintf("key %q is given twice", key.Value), Suggestion: "keep one"}, key)
			d.hide(e.Value)
		default:
			d.value(e.Value, field{f.v.Field(i), join(f.path, key.Value), enumOf(f.v.Type().Field(i))})
		}
		seen[key.Value] = true
	}
}

// unknownKey records a key that nothing reads, with what was probably meant.
func (d *decoder) unknownKey(e *ast.MappingValueNode, f field, names []string) {
	key := e.Key.GetToken()
	suggestion := didYouMean(key.Value, names)
	if suggestion == "" {
		suggestion = elsewhere(f.v, key.Value)
	}
	if suggestion == "" {
		suggestion = "known keys: " + strings.Join(names, ", ")
	}
	message := fmt.Sprintf("unknown key %q", key.Value)
	if f.path != "" {
		message += " in " + f.path
	}
	d.add(Finding{Code: CodeUnknownKey, Path: join(f.path, key.Value), Message: message, Suggestion: suggestion}, key)
	d.hide(e.Value)
}

// elsewhere says in which mapping below v the key would be known.
func elsewhere(v reflect.Value, key string) string {
	for i := range v.NumField() {
		sf := v.Type().Field(i)
		t := sf.Type
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct || t == secretType {
			continue
		}
		if in, _ := structFields(reflect.New(t).Elem()); in != nil {
			if _, ok := in[key]; ok {
				return fmt.Sprintf("it belongs under %q", sf.Tag.Get("yaml"))
			}
		}
	}
	return ""
}

// list reads a sequence.
func (d *decoder) list(n ast.Node, f field) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.wrongType(n, f, "a list")
		return
	}
	out := reflect.MakeSlice(f.v.Type(), len(seq.Values), len(seq.Values))
	for i, item := range seq.Values {
		d.value(item, field{out.Index(i), fmt.Sprintf("%s[%d]", f.path, i), f.enum})
	}
	f.v.Set(out)
}

// stringMap reads a mapping with free keys and text values.
func (d *decoder) stringMap(n ast.Node, f field) {
	entries, ok := pairs(n)
	if !ok {
		d.wrongType(n, f, "a mapping")
		return
	}
	out := reflect.MakeMap(f.v.Type())
	for _, e := range entries {
		key := e.Key.GetToken().Value
		item := reflect.New(f.v.Type().Elem()).Elem()
		d.value(e.Value, field{item, join(f.path, key), nil})
		if out.MapIndex(reflect.ValueOf(key)).IsValid() {
			d.add(Finding{Code: CodeDuplicateKey, Path: join(f.path, key), Message: fmt.Sprintf("key %q is given twice", key), Suggestion: "keep one"}, e.Key.GetToken())
		}
		out.SetMapIndex(reflect.ValueOf(key), item)
	}
	f.v.Set(out)
}

// scalar reads a scalar: its text, with references replaced, converted to f's type.
func (d *decoder) scalar(n ast.Node, f field) {
	text, ok := scalarText(n, f)
	if !ok {
		d.wrongType(n, f, describe(f.v.Type()))
		return
	}
	if f.v.Type() == secretType {
		d.hideAs(n, Redacted)
	}
	replaced, err := d.refs.replace(text)
	if err != nil {
		d.add(Finding{Code: CodeReference, Path: f.path, Message: f.path + ": " + err.Error(), Suggestion: err.Hint()}, n.GetToken())
		return
	}
	if len(f.enum) > 0 && !contains(f.enum, replaced) {
		suggestion := didYouMean(replaced, f.enum)
		if suggestion == "" {
			suggestion = "it is one of " + strings.Join(f.enum, ", ")
		}
		d.add(Finding{Code: CodeInvalidValue, Path: f.path, Message: f.path + " has an unknown value", Suggestion: suggestion}, n.GetToken())
		return
	}
	if message := set(f.v, replaced); message != "" {
		d.add(Finding{Code: CodeWrongType, Path: f.path, Message: f.path + " " + message}, n.GetToken())
	}
}

// scalarText is the text of a scalar as it was written. A bare null is text only where
// the word is one of the allowed values; a list or a mapping never is.
func scalarText(n ast.Node, f field) (string, bool) {
	switch t := n.(type) {
	case *ast.StringNode:
		return t.Value, true
	case *ast.LiteralNode:
		return t.Value.Value, true
	case *ast.NullNode:
		return "null", contains(f.enum, "null")
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// set converts text to v's type; a message says why it cannot. The text is not repeated:
// it may come from a reference.
func set(v reflect.Value, text string) string {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if err := u.UnmarshalText([]byte(text)); err != nil {
			return err.Error()
		}
		return ""
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		if text != "true" && text != "false" {
			return "is neither true nor false"
		}
		v.SetBool(text == "true")
	default:
		i, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err != nil {
			return "is not a whole number, or too large"
		}
		v.SetInt(i)
	}
	return ""
}

// describe names a type for a finding.
func describe(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[Size]():
		return "a size"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Int16, t.Kind() == reflect.Int32:
		return "a whole number"
	}
	return "text"
}

// wrongType records a node of another shape than f needs.
func (d *decoder) wrongType(n ast.Node, f field, want string) {
	where := f.path
	if where == "" {
		where = "the configuration"
	}
	found := "text"
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		found = "a mapping"
	case *ast.SequenceNode:
		found = "a list"
	case *ast.NullNode:
		found = "nothing"
	case *ast.AliasNode:
		found = "an alias without its anchor"
	}
	d.add(Finding{Code: CodeWrongType, Path: f.path, Message: fmt.Sprintf("%s needs %s, but there is %s", where, want, found)}, start(n))
	if n.Type() != ast.AliasType {
		d.hide(n)
	}
}

// add records a finding at a token.
func (d *decoder) add(f Finding, at *token.Token) {
	if at != nil {
		f.Line, f.Column = at.Position.Line, max(at.Position.Column, 1)
		f.width = width(at)
	}
	d.findings = append(d.findings, f)
}

// width is the number of characters that a token takes on its line.
func width(t *token.Token) int {
	origin, _, _ := strings.Cut(strings.TrimSpace(t.Origin), "\n")
	return max(utf8.RuneCountInString(strings.TrimSpace(origin)), 1)
}

// hide keeps every scalar below n out of the excerpts: nobody knows what it holds.
func (d *decoder) hide(n ast.Node) {
	ast.Walk(visitor(func(n ast.Node) {
		if _, ok := n.(ast.ScalarNode); ok {
			d.hideAs(n, "…")
		}
	}), n)
}

// hideAs shows another text in place of a scalar.
func (d *decoder) hideAs(n ast.Node, show string) {
	if t := n.GetToken(); n.Type() != ast.NullType {
		d.spans = append(d.spans, span{t.Position.Line, t.Position.Column, width(t), show})
	}
}

// visitor lets a function walk a tree.
type visitor func(ast.Node)

// Visit implements ast.Visitor.
func (v visitor) Visit(n ast.Node) ast.Visitor { v(n); return v }

// structFields returns the index of each field by its key, and the keys in order.
func structFields(v reflect.Value) (map[string]int, []string) {
	fields, names := map[string]int{}, []string{}
	for i := range v.NumField() {
		if name := v.Type().Field(i).Tag.Get("yaml"); name != "" {
			fields[name] = i
			names = append(names, name)
		}
	}
	return fields, names
}

// enumOf returns the values that a field's schema tag allows; none: any.
func enumOf(sf reflect.StructField) []string {
	var out []string
	for part := range strings.SplitSeq(sf.Tag.Get("jsonschema"), ",") {
		if v, ok := strings.CutPrefix(part, "enum="); ok {
			out = append(out, v)
		}
	}
	return out
}

// join appends a key to a configuration path.
func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// contains says whether list holds s.
func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}
