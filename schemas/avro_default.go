package schemas

import (
	"encoding/json"
	"math"
	"strconv"
)

// fits says whether a default is of its field's type; that of a union must be of any of
// its branches (of the first, before Avro 1.12). Source: the Avro specification, table of
// field default values.
func fits(v any, t *AvroType) bool {
	switch t.Kind {
	case AvroNull:
		return v == nil
	case AvroBoolean:
		_, ok := v.(bool)
		return ok
	case AvroInt, AvroLong, AvroFloat, AvroDouble:
		return fitsNumber(v, t.Kind)
	case AvroString, AvroBytes, AvroEnum, AvroFixed:
		return fitsText(v, t)
	case AvroArray:
		return fitsArray(v, t)
	case AvroMap, AvroRecord:
		return fitsObject(v, t)
	case AvroUnion:
		for _, b := range t.Branches {
			if fits(v, b) {
				return true
			}
		}
	}
	return false
}

func fitsNumber(v any, kind AvroKind) bool {
	n, ok := v.(json.Number)
	if !ok {
		return false
	}
	f, err := strconv.ParseFloat(n.String(), 64)
	if err != nil {
		return false
	}
	switch kind {
	case AvroInt:
		return f == math.Trunc(f) && f >= math.MinInt32 && f <= math.MaxInt32
	case AvroLong:
		return f == math.Trunc(f) && f >= math.MinInt64 && f <= math.MaxInt64
	}
	return true
}

func fitsText(v any, t *AvroType) bool {
	s, ok := v.(string)
	if !ok {
		return false
	}
	switch t.Kind {
	case AvroString:
		return true
	case AvroEnum:
		for _, symbol := range t.Symbols {
			if s == symbol {
				return true
			}
		}
		return false
	}
	n := 0 // bytes: one for each character up to U+00FF
	for _, r := range s {
		if r > 0xff {
			return false
		}
		n++
	}
	return t.Kind == AvroBytes || n == t.Size
}

func fitsArray(v any, t *AvroType) bool {
	list, ok := v.([]any)
	for _, item := range list {
		ok = ok && fits(item, t.Items)
	}
	return ok
}

func fitsObject(v any, t *AvroType) bool {
	o, ok := v.(map[string]any)
	if !ok {
		return false
	}
	if t.Kind == AvroMap {
		for _, value := range o {
			ok = ok && fits(value, t.Items)
		}
		return ok
	}
	for i := range t.Fields {
		f := &t.Fields[i]
		if value, given := o[f.Name]; given {
			ok = ok && fits(value, f.Type)
		} else {
			ok = ok && f.HasDefault
		}
	}
	return ok
}
