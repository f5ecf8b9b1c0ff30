package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/tailrace/tailrace/schemas"
)

// ordersDDL makes the table in a target; ordersTable is how a capture sees it.
const ordersDDL = `CREATE TABLE public.orders (
	id bigint PRIMARY KEY, customer bigint NOT NULL, status text NOT NULL,
	total numeric(12,2) NOT NULL, tax numeric(12,2) NOT NULL, currency text NOT NULL,
	placed timestamptz(6) NOT NULL, updated timestamptz(6) NOT NULL, paid boolean NOT NULL,
	reference uuid NOT NULL, details jsonb NOT NULL, note text, due date NOT NULL)`

func ordersTable() *schemas.Table {
	kind := func(k schemas.Kind) schemas.Type { return schemas.Type{Kind: k, Precision: 6} }
	money := schemas.Type{Kind: schemas.Decimal, Precision: 12, Scale: 2}
	return &schemas.Table{Namespace: "public", Name: "orders", Key: []int{0}, Columns: []schemas.Column{
		{Name: "id", Type: kind(schemas.Int64)},
		{Name: "customer", Type: kind(schemas.Int64)},
		{Name: "status", Type: kind(schemas.String)},
		{Name: "total", Type: money},
		{Name: "tax", Type: money},
		{Name: "currency", Type: kind(schemas.String)},
		{Name: "placed", Type: kind(schemas.ZonedTimestamp)},
		{Name: "updated", Type: kind(schemas.ZonedTimestamp)},
		{Name: "paid", Type: kind(schemas.Bool)},
		{Name: "reference", Type: kind(schemas.UUID)},
		{Name: "details", Type: kind(schemas.JSON)},
		{Name: "note", Type: kind(schemas.String), Nullable: true},
		{Name: "due", Type: kind(schemas.Date)},
	}}
}

// order is one version of a row.
type order struct {
	id, customer    int64
	status          string
	total, tax      []byte // digits of a numeric
	currency        string
	placed, updated int64 // microseconds since 1970
	paid            bool
	reference       []byte
	details         []byte
	note            []byte // nil: null
	due             int32  // days since 1970
}

var (
	statuses   = [...]string{"new", "picked", "packed", "shipped", "delivered", "returned"}
	currencies = [...]string{"EUR", "USD", "CHF", "GBP"}
	cities     = [...]string{"Basel", "Zürich", "Lyon", "Torino", "Bregenz", "Freiburg im Breisgau"}
	goods      = [...]string{"kettle", "desk lamp", "rain jacket", "bicycle pump", "notebook, ruled", "teapot"}
)

// dayOne is 2026-01-01 in microseconds.
var dayOne = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

// mix turns a number into one that looks random (SplitMix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// make makes the version of the row with this id; o's memory is used again.
func (o *order) make(id int64, version uint8) {
	a, b := mix(uint64(id)), mix(uint64(id)<<8|uint64(version))
	o.id, o.customer = id, int64(a%200_000)
	o.status = statuses[min(int(version), len(statuses)-1)]
	cents := a >> 20 % 5_000_000
	o.total, o.tax = appendMoney(o.total[:0], cents), appendMoney(o.tax[:0], cents/12)
	o.currency = currencies[a>>8%uint64(len(currencies))]
	o.placed = dayOne + id*250_000 + int64(a%1000)
	o.updated = o.placed + int64(version)*3_600_000_000 + int64(b%1_000_000)
	o.paid = version > 0
	o.reference = fmt.Appendf(o.reference[:0], "%08x-%04x-4%03x-a%03x-%012x", uint32(a), uint16(a>>32), b&0xfff, b>>12&0xfff, b>>16)
	o.details = fmt.Appendf(o.details[:0], `{"items": [{"sku": "%08X", "name": "%s", "count": %d}, {"sku": "%08X", "name": "%s", "count": %d}], "ship_to": {"city": "%s", "street": "Lindenweg %d"}, "gift": %t, "channel": "web"}`,
		uint32(a>>3), goods[a%uint64(len(goods))], a>>5%9+1, uint32(b), goods[b%uint64(len(goods))], b>>5%9+1, cities[a>>16%uint64(len(cities))], a>>9%200, a%7 == 0)
	o.note = o.note[:0]
	if a%3 == 0 {
		o.note = fmt.Appendf(o.note, "Leave it at door %d, please.\nThank you", a>>11%40)
	}
	o.due = int32(o.placed/86_400_000_000) + int32(a%30)
}

func appendMoney(dst []byte, cents uint64) []byte {
	dst = append(strconv.AppendUint(dst, cents/100, 10), '.')
	return append(dst, byte('0'+cents/10%10), byte('0'+cents%10))
}

// hasNote: every third order has one.
func (o *order) hasNote() bool { return len(o.note) > 0 }

// appendCopy appends the row as a line of COPY's text format.
func (o *order) appendCopy(dst []byte) []byte {
	dst = fmt.Appendf(dst, "%d\t%d\t%s\t%s\t%s\t%s\t", o.id, o.customer, o.status, o.total, o.tax, o.currency)
	for _, micros := range []int64{o.placed, o.updated} {
		dst = append(time.UnixMicro(micros).UTC().AppendFormat(dst, "2006-01-02 15:04:05.000000Z07:00"), '\t')
	}
	dst = fmt.Appendf(dst, "%t\t%s\t%s\t", o.paid, o.reference, o.details)
	if !o.hasNote() {
		dst = append(dst, `\N`...)
	}
	for _, c := range o.note {
		if c == '\n' {
			dst = append(dst, `\n`...)
		} else {
			dst = append(dst, c)
		}
	}
	dst = append(dst, '\t')
	dst = time.Unix(int64(o.due)*86_400, 0).UTC().AppendFormat(dst, time.DateOnly)
	return append(dst, '\n')
}

// appendAvro appends the row as a capture does.
func (o *order) appendAvro(dst []byte, t *schemas.Table) ([]byte, error) {
	dst = schemas.AppendLong(schemas.AppendLong(dst, o.id), o.customer)
	dst = schemas.AppendString(dst, o.status)
	var err error
	for i, digits := range [][]byte{o.total, o.tax} {
		if dst, err = schemas.AppendDecimal(dst, digits, t.Columns[3+i].Type.Scale); err != nil {
			return nil, err
		}
	}
	dst = schemas.AppendString(dst, o.currency)
	dst = schemas.AppendZonedTimestamp(dst, o.placed, &t.Columns[6].Type)
	dst = schemas.AppendZonedTimestamp(dst, o.updated, &t.Columns[7].Type)
	dst = schemas.AppendString(schemas.AppendBool(dst, o.paid), o.reference)
	dst = schemas.AppendString(dst, o.details)
	_, null, value := t.Columns[11].Union()
	if o.hasNote() {
		dst = schemas.AppendString(schemas.AppendUnion(dst, value), o.note)
	} else {
		dst = schemas.AppendUnion(dst, null)
	}
	return schemas.AppendDate(dst, o.due), nil
}

// appendAvroKey appends the row of a delete: nothing but the key is known, the rest is the
// types' zero.
func appendAvroKey(dst []byte, id int64, t *schemas.Table) ([]byte, error) {
	gone := order{id: id, total: []byte("0"), tax: []byte("0")}
	return gone.appendAvro(dst, t)
}
