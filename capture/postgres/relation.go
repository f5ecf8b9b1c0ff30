package postgres

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/tailrace/tailrace/schemas"
)

// Replica identities, as the log and pg_class.relreplident have them.
const (
	identityDefault = 'd' // old rows have the primary key
	identityNothing = 'n'
	identityFull    = 'f' // old rows have all columns
	identityIndex   = 'i' // old rows have the columns of a chosen index
)

// relation is a table as the log last described it, and what had to be added to that.
type relation struct {
	id              uint32
	namespace, name string
	identity        byte
	columns         []relationColumn
	described       []byte // what the hash is made of

	choice *choice    // of its columns; nil: all are written as they are
	added  []addition // to what the catalog says of this version
	plan   *plan      // nil until the first change after a description

	old, new []field // scratch for the fields of a message
}

type relationColumn struct {
	name string
	oid  uint32 // of the type
	mod  int32  // type modifier, -1 for none
	key  bool   // part of the replica identity; with identityFull all are
}

// addition is what a change showed of a column that the catalog had not said.
type addition struct {
	column int
	label  string // that an enum has; "": the column can be null
	isNull bool
}

// parseRelation reads a Relation message:
//
//	'R' Int32 relation id · String namespace ("" is pg_catalog) · String name
//	Int8 replica identity · Int16 number of columns, then for each
//	Int8 flags (1: part of the key) · String name · Int32 type's oid · Int32 type modifier
//
// Source: PostgreSQL's documentation, "Logical Replication Message Formats".
func parseRelation(m []byte) (*relation, error) {
	r := byteReader{rest: m[1:]}
	rel := &relation{id: r.uint32(), namespace: r.text(), name: r.text(), identity: r.byte()}
	if rel.namespace == "" {
		rel.namespace = "pg_catalog"
	}
	n := int(r.uint16())
	if r.failed || n > len(r.rest) { // each column has more than one byte
		return nil, errTruncated
	}
	rel.columns = make([]relationColumn, n)
	for i := range rel.columns {
		flags := r.byte()
		rel.columns[i] = relationColumn{key: flags&1 != 0, name: r.text(), oid: r.uint32(), mod: int32(r.uint32())}
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	rel.described = bytes.Clone(m[1+4:]) // all but the id, which a restored table does not keep
	rel.old, rel.new = make([]field, n), make([]field, n)
	return rel, nil
}

// hash returns the stable text over what the log said of the relation, what had to be added
// and what is chosen of it: capture.TableVersion's Hash.
func (rel *relation) hash() string { return rel.hashWith(rel.added, rel.choice) }

// logHash is the same over what the log said alone: capture.TableVersion's Log.
func (rel *relation) logHash() string { return rel.hashWith(nil, nil) }

// keyHash is the same over the masks of the columns that the log has in old rows:
// capture.TableVersion's Keys.
func (rel *relation) keyHash() string {
	h := sha256.New()
	masked := false
	for i := range rel.columns {
		if m := rel.choice.mask(i); m != nil && m.Kind == HMAC && rel.columns[i].key {
			fmt.Fprintf(h, "%d %s\x00", i, m.identity())
			masked = true
		}
	}
	if !masked {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (rel *relation) hashWith(added []addition, chosen *choice) string {
	h := sha256.New()
	h.Write(rel.described)
	for _, a := range added {
		fmt.Fprintf(h, "%d %t %s\x00", a.column, a.isNull, a.label)
	}
	chosen.describe(h)
	return hex.EncodeToString(h.Sum(nil))
}

// add notes an addition; ok is false if it had been noted before. The order in which they
// are found does not count.
func (rel *relation) add(a addition) (ok bool) {
	if slices.Contains(rel.added, a) {
		return false
	}
	rel.added = append(rel.added, a)
	slices.SortFunc(rel.added, func(a, b addition) int {
		if a.column != b.column {
			return a.column - b.column
		}
		return bytes.Compare([]byte(a.label), []byte(b.label))
	})
	return true
}

// apply puts what was added into the table that the catalog described.
func (rel *relation) apply(t *schemas.Table) {
	for _, a := range rel.added {
		c := &t.Columns[a.column]
		if a.isNull {
			c.Nullable = true
			continue
		}
		typ := &c.Type
		if typ.Kind == schemas.Array {
			typ = typ.Elem
		}
		if typ.Kind == schemas.Enum && !slices.Contains(typ.Allowed, a.label) {
			typ.Allowed = append(typ.Allowed, a.label) // renamed since
		}
	}
}

// same says that the log describes both relations alike, under the same name.
func (rel *relation) same(other *relation) bool {
	return other != nil && bytes.Equal(rel.described, other.described)
}

func (rel *relation) String() string { return rel.namespace + "." + rel.name }

// byteReader reads a message in order; failed sticks once the message was too short.
type byteReader struct {
	rest   []byte
	failed bool
}

func (r *byteReader) take(n int) []byte {
	if r.failed || len(r.rest) < n {
		r.failed = true
		return make([]byte, n) // n is small: the size of a number
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *byteReader) byte() byte     { return r.take(1)[0] }
func (r *byteReader) uint16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }
func (r *byteReader) uint32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }
func (r *byteReader) uint64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }

// text reads a string that ends with a NUL.
func (r *byteReader) text() string {
	i := bytes.IndexByte(r.rest, 0)
	if r.failed || i < 0 {
		r.failed = true
		return ""
	}
	s := string(r.rest[:i])
	r.rest = r.rest[i+1:]
	return s
}

// end says whether the message was read exactly to its end.
func (r *byteReader) end() error {
	if r.failed {
		return errTruncated
	}
	if len(r.rest) > 0 {
		return fmt.Errorf("%d bytes are left over", len(r.rest))
	}
	return nil
}
