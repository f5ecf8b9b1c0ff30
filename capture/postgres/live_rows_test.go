package postgres

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tailrace/tailrace/deploy/testenv"
)

// typeCases are values of every type that has a form of its own, and of some that are
// text, with what is decoded from what is written.
var typeCases = []struct{ typ, value, want string }{
	{"boolean", "true", "true"},
	{"boolean", "false", "false"},
	{"smallint", "-32768", "-32768"},
	{"integer", "2147483647", "2147483647"},
	{"bigint", "-9223372036854775808", "-9223372036854775808"},
	{"oid", "4294967295", "4294967295"},
	{"real", "1.5", `"1.5"`},
	{"real", "'NaN'", `"NaN"`},
	{"double precision", "0.1", `"0.1"`},
	{"double precision", "'-Infinity'", `"-Inf"`},
	{"double precision", "1e-320", `"1e-320"`},
	{"numeric(10,2)", "-12345678.9", `"-123456789/10"`},
	{"numeric(38,10)", "1234567890123456789012345678.0123456789", `"12345678901234567890123456780123456789/10000000000"`},
	{"numeric(4,0)", "0", `"0"`},
	{"numeric", "-1234.500", `{"scale":1,"value":"cfc7"}`},
	{"numeric", "1e40", `{"scale":0,"value":"1d6329f1c35ca4bfabb9f5610000000000"}`},
	{"text", "'a ''\"\\ ü €'", `"a '\"\\ ü €"`},
	{"text", "''", `""`},
	{"varchar(5)", "'abc'", `"abc"`},
	{"char(5)", "'abc'", `"abc  "`},
	{`"char"`, "'x'", `"x"`},
	{"name", "'n'", `"n"`},
	{"bytea", `'\x00ff10'`, `"00ff10"`},
	{"bytea", `''`, `""`},
	{"date", "'1969-12-31'", "-1"},
	{"date", "'0044-03-15 BC'", "-735160"},
	{"date", "'5874897-12-31'", "2145042905"},
	{"date", "'2000-02-29'", "11016"},
	{"time(3)", "'12:34:56.789'", "45296789"},
	{"time", "'23:59:59.999999'", "86399999999"},
	{"time(0)", "'24:00:00'", "86400000"},
	{"timestamp(3)", "'1969-12-31 23:59:59.999'", "-1"},
	{"timestamp", "'2024-05-06 07:08:09.123456'", "1714979289123456"},
	{"timestamp", "'0001-01-01 00:00:00 BC'", "-62167219200000000"},
	{"timestamp", "'infinity'", "9223372036825200000"},
	{"timestamp", "'-infinity'", "-9223372036832400000"},
	{"timestamptz", "'2024-05-06 07:08:09.1+05:30'", `"2024-05-06T01:38:09.100000Z"`},
	{"timestamptz(0)", "'2024-05-06 07:08:09+00'", `"2024-05-06T07:08:09Z"`},
	{"timestamptz", "'infinity'", `"infinity"`},
	{"timestamptz", "'0044-03-15 00:00:00+00 BC'", `"-0043-03-15T00:00:00.000000Z"`},
	{"timestamptz", "'12024-01-01 00:00:00+00'", `"+12024-01-01T00:00:00.000000Z"`},
	{"timetz", "'23:30:00.5-02:30'", `"02:00:00.5Z"`},
	{"timetz", "'00:30:00+01'", `"23:30:00Z"`},
	{"interval", "'1 year 2 mons -3 days +04:05:06.5'", fmt.Sprint(14*2629800000000 - 3*86400000000 + 14706500000)},
	{"interval", "'-1 day -00:00:01'", fmt.Sprint(-86401000000)},
	{"interval", "'0'", "0"},
	{"uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", `"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"`},
	{"json", `'{"a" : 1}'`, `"{\"a\" : 1}"`},
	{"jsonb", `'{"a" : [1,null]}'`, `"{\"a\": [1, null]}"`},
	{"xml", "'<a/>'", `"\u003ca/\u003e"`},
	{"mood", "'ok'", `"ok"`},
	{"mood[]", "'{ok,sad}'", `["ok","sad"]`},
	{"price", "12.5", `"25/2"`}, // a domain over numeric(8,2)
	{"price[]", "'{1.00,NULL}'", `["1",null]`},
	{"boolean[]", "'{t,f,NULL}'", "[true,false,null]"},
	{"smallint[]", "'{1,-2}'", "[1,-2]"},
	{"integer[]", "'{}'", "[]"},
	{"integer[]", "'[0:1]={7,8}'", "[7,8]"},
	{"bigint[]", "'{9223372036854775807}'", "[9223372036854775807]"},
	{"real[]", "'{1.5,NaN}'", `["1.5","NaN"]`},
	{"numeric(10,2)[]", "'{1.50,NULL}'", `["3/2",null]`},
	{"numeric[]", "'{1.50}'", `[{"scale":1,"value":"0f"}]`},
	{"text[]", `'{a,"b,c","d\"e","f\\g",NULL,"NULL","","{x}"}'`, `["a","b,c","d\"e","f\\g",null,"NULL","","{x}"]`},
	{"bytea[]", `'{"\\x00ff"}'`, `["00ff"]`},
	{"date[]", "'{1970-01-02}'", "[1]"},
	{"time[]", "'{00:00:01}'", "[1000000]"},
	{"timestamp(3)[]", "'{\"1970-01-01 00:00:01\"}'", "[1000]"},
	{"timestamptz[]", "'{\"2024-05-06 07:08:09+00\"}'", `["2024-05-06T07:08:09.000000Z"]`},
	{"uuid[]", "'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'", `["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]`},
	{"jsonb[]", `ARRAY['{"a": "b,c"}'::jsonb]`, `["{\"a\": \"b,c\"}"]`},
	{"inet[]", "'{10.0.0.1/8}'", `["10.0.0.1/8"]`},
	{"int4range", "'[1,5)'", `"[1,5)"`},
	{"int4range[]", `'{"[1,5)"}'`, `["[1,5)"]`},
	{"inet", "'10.0.0.1'", `"10.0.0.1"`},
	{"money", "'12.34'", `"$12.34"`},
	{"money[]", "'{12.34}'", `"{$12.34}"`}, // no array of its own: the text
	{"bit(3)", "B'101'", `"101"`},
	{"point", "'(1,2)'", `"(1,2)"`},
	{"point[]", `'{"(1,2)"}'`, `"{\"(1,2)\"}"`},
	{"interval[]", `'{"1 day"}'`, `"{\"1 day\"}"`},
	{"tsvector", "'a b'", `"'a' 'b'"`},
	{"pair", "ROW(1,'x')", `"(1,x)"`}, // a composite
	{"int2vector", "'1 2'", `"1 2"`},
}

var typeSetup = []string{
	"CREATE TYPE mood AS ENUM ('sad', 'ok')", "CREATE DOMAIN price AS numeric(8,2)", "CREATE TYPE pair AS (a int, b text)",
}

// Each value of each type, from the first snapshot of the stream to Avro, as insert,
// update with an old row, and null.
func TestLiveTypes(t *testing.T) {
	for _, version := range []int{14, 15, 16, 17, 18} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			if version != 15 {
				t.Parallel()
			}
			server := testenv.SharedPostgres(t)
			if version != 15 {
				server = testenv.NewPostgres(t, testenv.PGOptions{Version: version})
			}
			testTypesOn(t, server)
		})
	}
}

func testTypesOn(t *testing.T, server *testenv.Postgres) {
	l := newLive(t, server, typeSetup...)
	for i, c := range typeCases {
		l.exec(fmt.Sprintf("CREATE TABLE t%d (id int PRIMARY KEY, v %s)", i, c.typ), fmt.Sprintf("ALTER TABLE t%d REPLICA IDENTITY FULL", i))
	}
	l.start()
	for i, c := range typeCases {
		l.exec(fmt.Sprintf("INSERT INTO t%d VALUES (1, %s)", i, c.value), fmt.Sprintf("UPDATE t%d SET v = NULL", i))
	}
	for i, c := range typeCases {
		table := fmt.Sprintf(" public.t%d ", i)
		line := l.until("c"+table, "after=")
		if want := `after={"id":1,"v":` + c.want + `}`; !strings.Contains(line, want) {
			t.Errorf("%s %s: got %s, want %s", c.typ, c.value, line, want)
		}
		line = l.until("u"+table, "after=")
		if want := `before={"id":1,"v":` + c.want + `} after={"id":1,"v":null}`; !strings.Contains(line, want) {
			t.Errorf("%s %s: got %s, want %s", c.typ, c.value, line, want)
		}
	}
}

func TestLiveChanges(t *testing.T) {
	l := newLive(t, testenv.SharedPostgres(t),
		"CREATE TABLE orders (b int NOT NULL, a text NOT NULL, n int DEFAULT 5, PRIMARY KEY (a, b))",
		"CREATE TABLE items (id int PRIMARY KEY)")
	l.start()
	l.exec("INSERT INTO orders VALUES (1, 'x', 1)", "UPDATE orders SET n = 2", "UPDATE orders SET a = 'y', n = 3",
		"DELETE FROM orders", "INSERT INTO items VALUES (1)", "TRUNCATE orders, items", "INSERT INTO items VALUES (2)")
	l.until("c public.items", `{"id":2}`)
	var got []string
	for _, line := range l.changes() {
		before, _, _ := strings.Cut(line, " lsn=")
		_, headers, _ := strings.Cut(line, " newkey")
		if headers != "" {
			before += " newkey" + headers
		}
		got = append(got, before)
	}
	want := []string{
		`c public.orders key={"a":"x","b":1} before=null after={"a":"x","b":1,"n":1}`,
		`u public.orders key={"a":"x","b":1} before=null after={"a":"x","b":1,"n":2}`,
		`d public.orders key={"a":"x","b":1} before={"a":"x","b":1,"n":null} after=null newkey={"a":"y","b":1}`,
		`tombstone public.orders key={"a":"x","b":1} newkey={"a":"x","b":1}`,
		`c public.orders key={"a":"y","b":1} before=null after={"a":"y","b":1,"n":3}`,
		`d public.orders key={"a":"y","b":1} before={"a":"y","b":1,"n":null} after=null`,
		`tombstone public.orders key={"a":"y","b":1}`,
		`c public.items key={"id":1} before=null after={"id":1}`,
		`t public.orders key=none before=null after=null`,
		`t public.items key=none before=null after=null`,
		`c public.items key={"id":2} before=null after={"id":2}`,
	}
	want[3] = `tombstone public.orders key={"a":"x","b":1} newkey={"a":"y","b":1}`
	got[3] = l.changes()[3]
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
