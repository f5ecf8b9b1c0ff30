package postgres

import (
	"bytes"

	"github.com/tailrace/tailrace/schemas"
)

// encodeArray appends an array of one dimension. The text is
//
//	{item,item,…}    or, if its indexes do not begin with 1,    [2:3]={item,item}
//
// where an item is NULL, a word, or in double quotes, in which a backslash precedes any
// byte that is meant as it is. Indexes are not kept. Avro's array has one dimension, as
// Debezium's: more are ErrUnrepresentable. Source: PostgreSQL's documentation, "Array
// Input and Output Syntax".
func encodeArray(dst, text []byte, c *column) ([]byte, error) {
	items, ok := cutBounds(text)
	if !ok {
		return dst, errNotOfType
	}
	n, err := countItems(items)
	if err != nil {
		return dst, err
	}
	dst = schemas.AppendArrayStart(dst, n)
	for ; len(items) > 0; n-- {
		var item arrayItem
		if item, items, ok = nextItem(items, c.scratch[:0]); !ok {
			return dst, errNotOfType
		}
		if item.quoted {
			c.scratch = item.text[:0]
		}
		if dst, err = appendItem(dst, item, c.elem); err != nil {
			return dst, err
		}
	}
	if n != 0 {
		return dst, errNotOfType
	}
	if cap(c.scratch) > maxScratch {
		c.scratch = nil
	}
	return schemas.AppendArrayEnd(dst), nil
}

func appendItem(dst []byte, item arrayItem, elem *column) ([]byte, error) {
	if !item.quoted && string(item.text) == "NULL" {
		if !elem.union { // an enum's elements cannot be null
			return dst, schemas.ErrUnrepresentable
		}
		return append(dst, elem.null), nil
	}
	if elem.union {
		dst = append(dst, elem.value)
	}
	return elem.encode(dst, item.text, elem)
}

// cutBounds returns what stands between the outermost braces.
func cutBounds(text []byte) (items []byte, ok bool) {
	if len(text) > 0 && text[0] == '[' {
		i := bytes.IndexByte(text, '=')
		if i < 0 {
			return nil, false
		}
		text = text[i+1:]
	}
	if len(text) < 2 || text[0] != '{' || text[len(text)-1] != '}' {
		return nil, false
	}
	return text[1 : len(text)-1], true
}

// countItems counts the items of an array's inside.
func countItems(items []byte) (n int, err error) {
	if len(items) == 0 {
		return 0, nil
	}
	quoted := false
	n = 1
	for i := 0; i < len(items); i++ {
		switch c := items[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{':
			return 0, schemas.ErrUnrepresentable
		case c == ',':
			n++
		}
	}
	if quoted {
		return 0, errNotOfType
	}
	return n, nil
}

type arrayItem struct {
	text   []byte
	quoted bool
}

// nextItem reads the first of items, which are not none, and returns those after it. A
// quoted item is put into scratch without its quotes and backslashes.
func nextItem(items, scratch []byte) (item arrayItem, rest []byte, ok bool) {
	if items[0] != '"' {
		end := bytes.IndexByte(items, ',')
		if end < 0 {
			return arrayItem{text: items}, nil, true
		}
		return arrayItem{text: items[:end]}, items[end+1:], end > 0 && end+1 < len(items)
	}
	i := 1
	for ; i < len(items) && items[i] != '"'; i++ {
		if items[i] == '\\' {
			i++
			if i == len(items) {
				return item, nil, false
			}
		}
		scratch = append(scratch, items[i])
	}
	item = arrayItem{scratch, true}
	switch {
	case i == len(items):
		return item, nil, false
	case i+1 == len(items):
		return item, nil, true
	}
	return item, items[i+2:], items[i+1] == ',' && i+2 < len(items)
}
