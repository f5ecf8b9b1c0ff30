package show

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// node is one type of a schema, as far as rendering needs it.
type node struct {
	kind     string // null boolean int long float double bytes string record enum fixed array map union
	name     string // full name of a record, enum or fixed
	fields   []field
	symbols  []string // of an enum
	size     int      // of a fixed
	branches []*node  // of a union
	items    *node    // of an array or a map
	decimal  bool     // bytes or fixed with logical type decimal
	scale    int      // of a decimal
	alias    string   // name of a record, enum or fixed in the plain schema
}

// field is one field of a record.
type field struct {
	name string
	node *node
}

// maxDepth bounds how deep a schema may be nested.
const maxDepth = 64

var errDepth = errors.New("schema is nested too deep")

// parser reads a schema; names are the types defined so far.
type parser struct{ names map[string]*node }

// parse reads one type.
func (p *parser) parse(v any, namespace string, depth int) (*node, error) {
	if depth > maxDepth {
		return nil, errDepth
	}
	switch t := v.(type) {
	case string:
		return p.named(t, namespace)
	case []any:
		n := &node{kind: "union"}
		for _, b := range t {
			branch, err := p.parse(b, namespace, depth+1)
			if err != nil {
				return nil, err
			}
			n.branches = append(n.branches, branch)
		}
		return n, nil
	case map[string]any:
		return p.object(t, namespace, depth)
	}
	return nil, fmt.Errorf("schema has a type that is neither text, list nor object")
}

// named returns a primitive type, or one that was defined before.
func (p *parser) named(name, namespace string) (*node, error) {
	switch name {
	case "null", "boolean", "int", "long", "float", "double", "bytes", "string":
		return &node{kind: name}, nil
	}
	if n, ok := p.names[fullName(name, namespace)]; ok {
		return n, nil
	}
	if n, ok := p.names[name]; ok {
		return n, nil
	}
	return nil, fmt.Errorf("schema names an unknown type %q", name)
}

// object reads a type written as an object.
func (p *parser) object(m map[string]any, namespace string, depth int) (*node, error) {
	kind, ok := m["type"].(string)
	if !ok {
		return p.parse(m["type"], namespace, depth+1)
	}
	decimal := m["logicalType"] == "decimal"
	switch kind {
	case "record", "error", "enum", "fixed":
		return p.define(m, kind, namespace, decimal, depth)
	case "array", "map":
		key := map[string]string{"array": "items", "map": "values"}[kind]
		items, err := p.parse(m[key], namespace, depth+1)
		return &node{kind: kind, items: items}, err
	}
	n, err := p.named(kind, namespace)
	if err == nil && decimal && kind == "bytes" {
		n.decimal, n.scale = true, scaleOf(m)
	}
	return n, err
}

// define reads a record, an enum or a fixed, and notes its name.
func (p *parser) define(m map[string]any, kind, namespace string, decimal bool, depth int) (*node, error) {
	name, _ := m["name"].(string)
	if ns, ok := m["namespace"].(string); ok {
		namespace = ns
	}
	n := &node{kind: kind, name: fullName(name, namespace)}
	n.alias = fmt.Sprintf("T%d", len(p.names))
	if n.size = numberOf(m, "size"); kind == "fixed" && decimal {
		n.decimal, n.scale = true, scaleOf(m)
	}
	symbols, _ := m["symbols"].([]any)
	for _, s := range symbols {
		n.symbols = append(n.symbols, fmt.Sprint(s))
	}
	p.names[n.name] = n
	if i := strings.LastIndexByte(n.name, '.'); i >= 0 {
		namespace = n.name[:i]
	}
	fields, _ := m["fields"].([]any)
	for _, f := range fields {
		fm, ok := f.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("schema has a field that is no object")
		}
		fieldName, _ := fm["name"].(string)
		fn, err := p.parse(fm["type"], namespace, depth+1)
		if err != nil {
			return nil, err
		}
		n.fields = append(n.fields, field{fieldName, fn})
	}
	return n, nil
}

// fullName puts a namespace before a name that has none.
func fullName(name, namespace string) string {
	if namespace == "" || strings.Contains(name, ".") {
		return name
	}
	return namespace + "." + name
}

// scaleOf returns a decimal's scale.
func scaleOf(m map[string]any) int {
	if i := numberOf(m, "scale"); i < 1000 {
		return i
	}
	return 0
}

// numberOf returns an attribute that is a number, 0 if it is none.
func numberOf(m map[string]any, key string) int {
	if n, ok := m[key].(json.Number); ok {
		if i, err := strconv.Atoi(n.String()); err == nil && i >= 0 {
			return i
		}
	}
	return 0
}

// plain writes the schema again without all that does not change the bytes: logical
// types, defaults, attributes, and names, since Connect lets characters into names that
// Avro does not. Types are called T0, T1, …, fields F0, F1, …, symbols S0, S1, ….
func plain(n *node, defined map[*node]bool) any {
	if n.alias != "" && defined[n] {
		return n.alias
	}
	switch n.kind {
	case "union":
		branches := []any{}
		for _, b := range n.branches {
			branches = append(branches, plain(b, defined))
		}
		return branches
	case "array":
		return map[string]any{"type": "array", "items": plain(n.items, defined)}
	case "map":
		return map[string]any{"type": "map", "values": plain(n.items, defined)}
	case "fixed":
		defined[n] = true
		return map[string]any{"type": "fixed", "name": n.alias, "size": n.size}
	case "enum":
		defined[n] = true
		return map[string]any{"type": "enum", "name": n.alias, "symbols": numbered("S", len(n.symbols))}
	case "record", "error":
		defined[n] = true
		fields := []any{}
		for i, name := range numbered("F", len(n.fields)) {
			fields = append(fields, map[string]any{"name": name, "type": plain(n.fields[i].node, defined)})
		}
		return map[string]any{"type": "record", "name": n.alias, "fields": fields}
	}
	return n.kind
}

// numbered returns prefix0, prefix1, ….
func numbered(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = prefix + strconv.Itoa(i)
	}
	return out
}
