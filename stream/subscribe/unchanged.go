package subscribe

import "github.com/tailrace/tailrace/schemas"

// What stands for a value that an UPDATE did not touch and the log does not
// hold. Source: Debezium's option unavailable.value.placeholder and its value
// converters: the text itself, in arrays the text as the one item, or its bytes
// one by one, or the UUID that is made of its MD5.
const (
	unavailable     = "__debezium_unavailable_value"
	unavailableUUID = "b68a35a7-17ad-35b3-af2a-ae46edb4545a"
)

// markerOf returns the test for "unchanged" of a type; nil if it has no marker.
func markerOf(t *schemas.AvroType) func([]schemas.Value, int) bool {
	switch t.Kind {
	case schemas.AvroString, schemas.AvroBytes:
		if t.Logical == "decimal" {
			return nil
		}
		return isMarkerText
	case schemas.AvroMap:
		return isMarkerMap
	case schemas.AvroArray:
		return arrayMarkerOf(notNull(t.Items))
	}
	return nil
}

func arrayMarkerOf(item *schemas.AvroType) func([]schemas.Value, int) bool {
	switch {
	case item == nil:
		return nil
	case item.ConnectName == "io.debezium.data.Uuid":
		return isMarkerUUIDs
	case item.Kind == schemas.AvroString || item.Kind == schemas.AvroBytes && item.Logical != "decimal":
		return isMarkerTexts
	case item.Kind == schemas.AvroInt || item.Kind == schemas.AvroLong:
		return isMarkerNumbers
	}
	return nil
}

func isMarkerText(tape []schemas.Value, at int) bool {
	b := tape[at].Bytes
	return len(b) == len(unavailable) && string(b) == unavailable
}

func isMarkerTexts(tape []schemas.Value, at int) bool {
	return tape[at].Int() == 1 && isMarkerText(tape, at+1)
}

func isMarkerUUIDs(tape []schemas.Value, at int) bool {
	return tape[at].Int() == 1 && string(tape[at+1].Bytes) == unavailableUUID
}

// isMarkerMap knows {marker: marker}.
func isMarkerMap(tape []schemas.Value, at int) bool {
	return tape[at].Int() == 1 && isMarkerText(tape, at+1) && isMarkerText(tape, at+2)
}

func isMarkerNumbers(tape []schemas.Value, at int) bool {
	if tape[at].Int() != int64(len(unavailable)) {
		return false
	}
	for i := range len(unavailable) {
		v := &tape[at+1+i]
		if v.IsNull() || v.Int() != int64(unavailable[i]) {
			return false
		}
	}
	return true
}
