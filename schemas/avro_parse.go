package schemas

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// parseAvro reads a schema's JSON text; source of its rules is the Avro specification
// 1.12, "Schema Declaration".
func parseAvro(schema string) (*AvroType, error) {
	if len(schema) > maxSchemaBytes {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed", len(schema), maxSchemaBytes)
	}
	dec := json.NewDecoder(bytes.NewReader([]byte(schema)))
	dec.UseNumber()
	var doc any
	if err := dec.Decode(&doc); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("text after the schema's end")
	}
	p := avroParser{named: map[string]*AvroType{}}
	t, err := p.parse(doc, "", 0)
	if err != nil {
		return nil, err
	}
	for _, check := range p.defaults { // when all types are known
		if err := check(); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// avroParser reads types; named are those with a name, by full name.
type avroParser struct {
	named    map[string]*AvroType
	defaults []func() error
}

func (p *avroParser) parse(doc any, namespace string, depth int) (*AvroType, error) {
	if depth > maxSchemaDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxSchemaDepth)
	}
	switch v := doc.(type) {
	case string:
		return p.reference(v, namespace)
	case []any:
		return p.union(v, namespace, depth)
	case map[string]any:
		return p.object(v, namespace, depth)
	}
	return nil, fmt.Errorf("a type is a name, an object or a list, not %v", doc)
}

// reference finds a type by its name: a primitive, else one named before, in the
// enclosing namespace or in none.
func (p *avroParser) reference(name, namespace string) (*AvroType, error) {
	if k := slices.Index(avroKinds[:AvroRecord], name); k >= 0 {
		return &AvroType{Kind: AvroKind(k)}, nil
	}
	for _, full := range []string{qualify(name, namespace), name} {
		if t, ok := p.named[full]; ok {
			return t, nil
		}
	}
	return nil, fmt.Errorf("unknown type %q", name)
}

func qualify(name, namespace string) string {
	if namespace == "" || strings.Contains(name, ".") {
		return name
	}
	return namespace + "." + name
}

func (p *avroParser) union(branches []any, namespace string, depth int) (*AvroType, error) {
	t := &AvroType{Kind: AvroUnion}
	met := map[string]bool{}
	for _, doc := range branches {
		b, err := p.parse(doc, namespace, depth+1)
		if err != nil {
			return nil, err
		}
		if b.Kind == AvroUnion {
			return nil, errors.New("a union directly in a union")
		}
		if met[b.label()] {
			return nil, fmt.Errorf("two branches of one union are %s", b.label())
		}
		met[b.label()] = true
		t.Branches = append(t.Branches, b)
	}
	return t, nil
}

func (p *avroParser) object(o map[string]any, namespace string, depth int) (*AvroType, error) {
	name, ok := o["type"].(string)
	if !ok {
		return p.parse(o["type"], namespace, depth+1)
	}
	var t *AvroType
	var err error
	switch name {
	case "record", "error":
		t, err = p.record(o, namespace, depth)
	case "enum":
		t, err = p.enum(o, namespace)
	case "fixed":
		t, err = p.fixed(o, namespace)
	case "array":
		t = &AvroType{Kind: AvroArray}
		t.Items, err = p.parse(o["items"], namespace, depth+1)
	case "map":
		t = &AvroType{Kind: AvroMap}
		t.Items, err = p.parse(o["values"], namespace, depth+1)
	default:
		t, err = p.reference(name, namespace)
		if err == nil && t.Name != "" { // a named type met again: nothing is added to it
			return t, nil
		}
	}
	if err != nil {
		return nil, err
	}
	annotateAvro(t, o)
	return t, nil
}

// annotateAvro notes what else is said of a type. What does not fit a logical type is
// ignored, as the specification wants it.
func annotateAvro(t *AvroType, o map[string]any) {
	t.ConnectName, _ = o["connect.name"].(string)
	t.Logical, _ = o["logicalType"].(string)
	if t.Logical == "decimal" {
		t.Precision, _ = integer(o["precision"])
		t.Scale, _ = integer(o["scale"])
	}
}

func integer(v any) (int, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	i, err := strconv.Atoi(n.String())
	return i, err == nil
}

// define makes a named type and returns the namespace that holds inside it. Only the last
// part of its name must be a name in Avro's sense.
func (p *avroParser) define(o map[string]any, kind AvroKind, namespace string) (*AvroType, string, error) {
	name, _ := o["name"].(string)
	if own, ok := o["namespace"].(string); ok && !strings.Contains(name, ".") {
		namespace = own
	}
	full := qualify(name, namespace)
	dot := strings.LastIndexByte(full, '.')
	if !isAvroName(full[dot+1:]) {
		return nil, "", fmt.Errorf("a %s cannot be called %q", kind, name)
	}
	if p.named[full] != nil || slices.Contains(avroKinds[:AvroRecord], full) {
		return nil, "", fmt.Errorf("type %s is defined twice", full)
	}
	namespace = full[:max(dot, 0)]
	aliases, err := stringList(o, "aliases")
	if err != nil {
		return nil, "", fmt.Errorf("type %s: %w", full, err)
	}
	for i, a := range aliases {
		aliases[i] = qualify(a, namespace)
	}
	t := &AvroType{Kind: kind, Name: full, Aliases: aliases}
	p.named[full] = t
	return t, namespace, nil
}

// stringList reads a member that is a list of strings, or absent.
func stringList(o map[string]any, member string) ([]string, error) {
	if o[member] == nil {
		return nil, nil
	}
	list, ok := o[member].([]any)
	out := make([]string, 0, len(list))
	for _, v := range list {
		s, isString := v.(string)
		ok = ok && isString
		out = append(out, s)
	}
	if !ok {
		return nil, fmt.Errorf("%s is not a list of names", member)
	}
	return out, nil
}

func (p *avroParser) enum(o map[string]any, namespace string) (*AvroType, error) {
	t, _, err := p.define(o, AvroEnum, namespace)
	if err != nil {
		return nil, err
	}
	t.Symbols, err = stringList(o, "symbols")
	if err != nil {
		return nil, fmt.Errorf("enum %s: %w", t.Name, err)
	}
	met := make(map[string]bool, len(t.Symbols))
	for _, s := range t.Symbols {
		if met[s] || !isAvroName(s) {
			return nil, fmt.Errorf("enum %s: symbol %q is no name or there twice", t.Name, s)
		}
		met[s] = true
	}
	if d, ok := o["default"]; ok {
		t.EnumDefault, _ = d.(string)
		if !met[t.EnumDefault] {
			return nil, fmt.Errorf("enum %s: default %v is not among its symbols", t.Name, d)
		}
	}
	return t, nil
}

func (p *avroParser) fixed(o map[string]any, namespace string) (*AvroType, error) {
	t, _, err := p.define(o, AvroFixed, namespace)
	if err != nil {
		return nil, err
	}
	size, ok := integer(o["size"])
	if !ok || size < 0 {
		return nil, fmt.Errorf("fixed %s: size %v is not a number of bytes", t.Name, o["size"])
	}
	t.Size = size
	return t, nil
}

func (p *avroParser) record(o map[string]any, namespace string, depth int) (*AvroType, error) {
	t, namespace, err := p.define(o, AvroRecord, namespace)
	if err != nil {
		return nil, err
	}
	fields, ok := o["fields"].([]any)
	if !ok {
		return nil, fmt.Errorf("record %s has no list of fields", t.Name)
	}
	met := make(map[string]bool, len(fields))
	for _, doc := range fields {
		f, err := p.field(doc, namespace, depth)
		if err != nil {
			return nil, fmt.Errorf("record %s: %w", t.Name, err)
		}
		if met[f.Name] {
			return nil, fmt.Errorf("record %s: field %s is there twice", t.Name, f.Name)
		}
		met[f.Name] = true
		t.Fields = append(t.Fields, f)
	}
	return t, nil
}

func (p *avroParser) field(doc any, namespace string, depth int) (AvroField, error) {
	var f AvroField
	o, _ := doc.(map[string]any)
	f.Name, _ = o["name"].(string)
	if !isAvroName(f.Name) {
		return f, fmt.Errorf("a field cannot be called %q", f.Name)
	}
	var err error
	if f.Type, err = p.parse(o["type"], namespace, depth+1); err == nil {
		f.Aliases, err = stringList(o, "aliases")
	}
	if err != nil {
		return f, fmt.Errorf("field %s: %w", f.Name, err)
	}
	if f.Default, f.HasDefault = o["default"]; f.HasDefault {
		p.defaults = append(p.defaults, func() error {
			if !fits(f.Default, f.Type) {
				return fmt.Errorf("field %s: default %v is not of its type", f.Name, f.Default)
			}
			return nil
		})
	}
	return f, nil
}
