package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The records of `_schemas`, as Confluent's registry 8 writes them (its classes SchemaKey,
// ConfigKey, ModeKey, DeleteSubjectKey, ClearSubjectKey, NoopKey and their values).
// Compaction compares keys as bytes, so that ours must be the same to the last one:
//
//	{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}    value: schemaValue
//	{"keytype":"CONFIG","subject":"s","magic":0}                value: subject, compatibilityLevel
//	{"keytype":"CONFIG","magic":0}                              value: compatibilityLevel; the global one
//	{"keytype":"MODE","subject":"s","magic":0}                  value: subject, mode; global alike
//	{"keytype":"DELETE_SUBJECT","subject":"s","magic":0}        value: subject, version: all up to it are soft-deleted
//	{"keytype":"CLEAR_SUBJECT","subject":"s","magic":0}         value: subject: its soft-deleted versions are gone
//	{"keytype":"NOOP","magic":0}                                value: null; ours: maxId
//
// All others (CONTEXT, ASSOC, what later versions add) are left unread. So are subjects of
// a context other than the default one, which are named `:.context:subject`.
//
// NOOP has a value where a permanent deletion took the highest id out of the log: after
// compaction nothing else would tell that the id was ever given, and records framed with
// it would be read with a schema that is not theirs. Confluent's reader passes over NOOP
// whatever its value.
type keyType string

const (
	keySchema        keyType = "SCHEMA"
	keyConfig        keyType = "CONFIG"
	keyMode          keyType = "MODE"
	keyDeleteSubject keyType = "DELETE_SUBJECT"
	keyClearSubject  keyType = "CLEAR_SUBJECT"
	keyNoop          keyType = "NOOP"
)

// recordKey is a parsed key. As a map key it is the record's identity.
type recordKey struct {
	keyType keyType
	subject string // empty: global
	version int    // of SCHEMA
}

// bytes renders k exactly as it stands in the log.
func (k recordKey) bytes() []byte {
	b := append([]byte(`{"keytype":"`), k.keyType...)
	b = append(b, '"')
	if k.subject != "" {
		b = appendString(append(b, `,"subject":`...), k.subject)
	}
	if k.keyType == keySchema {
		b = strconv.AppendInt(append(b, `,"version":`...), int64(k.version), 10)
		return append(b, `,"magic":1}`...)
	}
	return append(b, `,"magic":0}`...)
}

// appendString appends s as a JSON string the way Jackson does: only quotes, backslashes
// and control characters are escaped.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	const special, short = "\"\\\b\f\n\r\t", `"\bfnrt`
	dst = append(dst, '"')
	for i := range len(s) {
		c := s[i]
		if e := strings.IndexByte(special, c); e >= 0 {
			dst = append(dst, '\\', short[e])
		} else if c < 0x20 {
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		} else {
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}

// schemaValue is the value of a SCHEMA record. What this server does not use it keeps.
type schemaValue struct {
	Subject    string          `json:"subject"`
	Version    int             `json:"version"`
	ID         int32           `json:"id"`
	MD5        string          `json:"md5"`
	SchemaType string          `json:"schemaType"` // empty: AVRO
	References json.RawMessage `json:"references"`
	Metadata   json.RawMessage `json:"metadata"`
	RuleSet    json.RawMessage `json:"ruleSet"`
	Schema     string          `json:"schema"`
	Deleted    bool            `json:"deleted"`
}

func (v *schemaValue) bytes() []byte {
	b := appendString([]byte(`{"subject":`), v.Subject)
	b = strconv.AppendInt(append(b, `,"version":`...), int64(v.Version), 10)
	b = strconv.AppendInt(append(b, `,"id":`...), int64(v.ID), 10)
	if v.MD5 != "" {
		b = appendString(append(b, `,"md5":`...), v.MD5)
	}
	if v.SchemaType != "" && v.SchemaType != typeAvro {
		b = appendString(append(b, `,"schemaType":`...), v.SchemaType)
	}
	b = appendRaw(b, "references", v.References)
	b = appendRaw(b, "metadata", v.Metadata)
	b = appendRaw(b, "ruleSet", v.RuleSet)
	b = appendString(append(b, `,"schema":`...), v.Schema)
	b = strconv.AppendBool(append(b, `,"deleted":`...), v.Deleted)
	return append(b, '}')
}

// appendRaw appends a member of an object, unless it is empty.
func appendRaw(dst []byte, name string, raw json.RawMessage) []byte {
	if isEmpty(raw) {
		return dst
	}
	return append(append(append(append(dst, `,"`...), name...), `":`...), raw...)
}

// settingValue is the value of a CONFIG or MODE record: its members as they stand there,
// so that setting one leaves the others.
type settingValue map[string]json.RawMessage

func (v settingValue) text(name string) string {
	var s string
	if json.Unmarshal(v[name], &s) != nil {
		return ""
	}
	return s
}

// with returns a copy of v in which name is text, or absent if text is empty.
func (v settingValue) with(name, text string) settingValue {
	w := maps.Clone(v)
	if w == nil {
		w = settingValue{}
	}
	w[name] = appendString(nil, text)
	if text == "" {
		delete(w, name)
	}
	return w
}

func (v settingValue) bytes(subject string) []byte {
	b := []byte{'{'}
	if subject != "" {
		b = appendString(append(b, `"subject":`...), subject)
	}
	for _, name := range slices.Sorted(maps.Keys(v)) {
		if name == "subject" || isEmpty(v[name]) {
			continue
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(append(appendString(b, name), ':'), v[name]...)
	}
	return append(b, '}')
}

// deleteValue is the value of a DELETE_SUBJECT record.
type deleteValue struct {
	Version int `json:"version"`
}

func (v deleteValue) bytes(subject string) []byte {
	b := appendString([]byte(`{"subject":`), subject)
	b = strconv.AppendInt(append(b, `,"version":`...), int64(v.Version), 10)
	return append(b, '}')
}

// noopValue is what we write as the value of a NOOP record.
type noopValue struct {
	MaxID int32 `json:"maxId"`
}

func (v noopValue) bytes() []byte {
	return append(strconv.AppendInt([]byte(`{"maxId":`), int64(v.MaxID), 10), '}')
}

// record is one parsed entry. It shares no memory with the entry.
type record struct {
	offset    int64
	recordKey        // zero: not for this server
	key       string // as it stands in the log
	value     string // as it stands in the log; for keys of this server only
	tombstone bool

	schema  *schemaValue // of SCHEMA
	setting settingValue // of CONFIG and MODE
	version int          // of DELETE_SUBJECT
	maxID   int32        // of NOOP
}

// parseRecord reads an entry. What is not for this server is no error, but a key that is
// not a record's, or a value that is not its key's, is: such a log is damaged.
func parseRecord(offset int64, e Entry) (*record, error) {
	r := &record{offset: offset, tombstone: e.Value == nil}
	var k struct {
		KeyType *keyType `json:"keytype"`
		Subject string   `json:"subject"`
		Version int64    `json:"version"`
	}
	if err := json.Unmarshal(e.Key, &k); err != nil || k.KeyType == nil {
		return nil, fmt.Errorf("read record %d of the schemas log: key %.200q is not one of a registry", offset, e.Key)
	}
	parse := r.parser(*k.KeyType)
	if parse == nil || strings.HasPrefix(k.Subject, ":.") {
		return r, nil
	}
	r.recordKey = recordKey{keyType: *k.KeyType, subject: k.Subject}
	r.key, r.value = string(e.Key), string(e.Value)
	if r.keyType == keySchema {
		if k.Version < 1 || k.Version > maxInt32 {
			return nil, fmt.Errorf("read record %d of the schemas log: version %d in its key", offset, k.Version)
		}
		r.recordKey.version = int(k.Version)
	}
	if r.tombstone {
		return r, nil
	}
	if err := parse(e.Value); err != nil {
		return nil, fmt.Errorf("read record %d of the schemas log, key %.200q: %w", offset, e.Key, err)
	}
	return r, nil
}

const maxInt32 = 1<<31 - 1

// parser returns what reads the value of a record of type t; nil: leave it unread.
func (r *record) parser(t keyType) func(value []byte) error {
	switch t {
	case keySchema:
		return r.parseSchema
	case keyConfig, keyMode:
		return func(value []byte) error { return json.Unmarshal(value, &r.setting) }
	case keyDeleteSubject:
		return r.parseDelete
	case keyClearSubject:
		return func([]byte) error { return nil }
	case keyNoop:
		return r.parseNoop
	}
	return nil
}

func (r *record) parseSchema(value []byte) error {
	v := new(schemaValue)
	if err := json.Unmarshal(value, v); err != nil {
		return err
	}
	if v.ID < 0 || v.Schema == "" && v.SchemaType == "" {
		return fmt.Errorf("value has id %d and a schema of %d bytes", v.ID, len(v.Schema))
	}
	// The key says whose it is; early registries repeated it wrongly in soft deletions.
	v.Subject, v.Version = r.subject, r.recordKey.version
	r.schema = v
	return nil
}

func (r *record) parseDelete(value []byte) error {
	var v deleteValue
	err := json.Unmarshal(value, &v)
	r.version = v.Version
	return err
}

func (r *record) parseNoop(value []byte) error {
	var v noopValue
	if json.Unmarshal(value, &v) == nil { // anybody else's value means nothing
		r.maxID = max(v.MaxID, 0)
	}
	return nil
}

const typeAvro = "AVRO"

// isEmpty tells whether a JSON value is absent, null, or an empty string, list or object.
func isEmpty(raw json.RawMessage) bool {
	switch string(bytes.TrimSpace(raw)) {
	case "", "null", `""`, "[]", "{}":
		return true
	}
	return false
}

// printable says that a subject can be a part of a key: valid UTF-8 without control
// characters.
func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return r < 0x20 || r >= 0x7f && r < 0xa0
	})
}
