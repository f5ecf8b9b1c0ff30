package schemas

import (
	"fmt"
	"strings"
	"unicode/utf16"
)

// Ways to make Connect's names fit Avro, Naming.Adjust. Source: Debezium's
// SchemaNameAdjuster, as NAME_ADJUST in testdata shows it.
const (
	AdjustNone    = "none"         // as they are; a field name that Avro does not allow is an error
	AdjustAvro    = "avro"         // each character that Avro does not allow becomes _
	AdjustUnicode = "avro_unicode" // it becomes _u and its number in hex, and so does _ itself
)

// Naming is what the names of topics and schemas are made of.
type Naming struct {
	Prefix    string // of the topics
	Connector string // Debezium's name of the kind of source: postgresql
	Adjust    string // AdjustNone (also if empty), AdjustAvro, AdjustUnicode
}

// TopicName returns the topic of a table's changes: prefix.namespace.name, each UTF-16
// unit outside [A-Za-z0-9._-] replaced by _.
func TopicName(prefix, namespace, name string) string {
	var b strings.Builder
	for _, u := range utf16.Encode([]rune(prefix + "." + namespace + "." + name)) {
		if u == '.' || u == '-' || isNameUnit(u) {
			b.WriteByte(byte(u))
		} else {
			b.WriteByte('_')
		}
	}
	return b.String()
}

// fullName adjusts a dotted schema name. As in Debezium the rule for a first character
// holds for the whole name only, not after each dot.
func (n *Naming) fullName(name string) string { return n.adjust(name, true) }

// fieldName adjusts a column's name.
func (n *Naming) fieldName(name string) string { return n.adjust(name, false) }

func (n *Naming) adjust(name string, dots bool) string {
	if n.Adjust != AdjustAvro && n.Adjust != AdjustUnicode {
		return name
	}
	unicode := n.Adjust == AdjustUnicode
	var b strings.Builder
	for i, u := range utf16.Encode([]rune(name)) {
		digit := u >= '0' && u <= '9'
		allowed := isNameUnit(u) && !(unicode && u == '_') && !(digit && i == 0)
		switch {
		case allowed || dots && u == '.' && i > 0:
			b.WriteByte(byte(u))
		case unicode:
			b.WriteString(unicodeEscape(u))
		case digit:
			b.WriteByte('_')
			b.WriteByte(byte(u))
		default:
			b.WriteByte('_')
		}
	}
	return b.String()
}

// unicodeEscape pads only numbers of one or two hex digits, by 00, as Debezium does.
func unicodeEscape(u uint16) string {
	if u <= 0xff {
		return fmt.Sprintf("_u00%x", u)
	}
	return fmt.Sprintf("_u%x", u)
}

func (n *Naming) check() error {
	switch n.Adjust {
	case "", AdjustNone, AdjustAvro, AdjustUnicode:
		return nil
	}
	return fmt.Errorf("derive schemas: unknown name adjustment %q", n.Adjust)
}

// isNameUnit says whether a UTF-16 unit may stand in an Avro name.
func isNameUnit(u uint16) bool {
	return u >= 'a' && u <= 'z' || u >= 'A' && u <= 'Z' || u >= '0' && u <= '9' || u == '_'
}

// isAvroName says whether s is a name in the sense of the Avro specification, "Names".
func isAvroName(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isNameUnit(uint16(s[i])) || i == 0 && s[0] >= '0' && s[0] <= '9' {
			return false
		}
	}
	return s != ""
}
