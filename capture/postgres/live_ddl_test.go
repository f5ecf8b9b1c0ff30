package postgres

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tailrace/tailrace/deploy/testenv"
)

// Tables change while rows are under way: each row is written by what held at its place.
func TestLiveSchemaChanges(t *testing.T) {
	l := newLive(t, testenv.SharedPostgres(t), "CREATE TABLE t (id int PRIMARY KEY, v int)")
	l.start()
	l.stop()
	// All of this is in the log before it is read: the catalog is ahead of every row.
	l.exec("INSERT INTO t VALUES (1, 1)",
		"ALTER TABLE t ADD COLUMN w text DEFAULT 'x'", "INSERT INTO t VALUES (2, 2)",
		"ALTER TABLE t ALTER COLUMN v TYPE text USING 'n' || v", "INSERT INTO t VALUES (3, 'three')",
		"ALTER TABLE t DROP COLUMN w", "INSERT INTO t VALUES (4, NULL)",
		"UPDATE t SET v = '' WHERE v IS NULL", "ALTER TABLE t ALTER COLUMN v SET NOT NULL", "INSERT INTO t VALUES (5, 'five')",
		"ALTER TABLE t RENAME COLUMN v TO value", "INSERT INTO t VALUES (6, 'six')",
		"ALTER TABLE t RENAME TO renamed", "INSERT INTO renamed VALUES (7, 'seven')",
		"BEGIN", "INSERT INTO renamed VALUES (8, 'eight')", "ALTER TABLE renamed ADD COLUMN z int", "INSERT INTO renamed VALUES (9, 'nine', 9)", "COMMIT")
	l.start()
	l.until("c public.renamed", `"id":9`)
	for i, want := range []string{
		`after={"id":1,"v":1}`, `after={"id":2,"v":2,"w":"x"}`, `after={"id":3,"v":"three","w":"x"}`,
		`after={"id":4,"v":null}`, `after={"id":4,"v":""}`, `after={"id":5,"v":"five"}`, `after={"id":6,"value":"six"}`,
		`after={"id":7,"value":"seven"}`, `after={"id":8,"value":"eight"}`, `after={"id":9,"value":"nine","z":9}`,
	} {
		if got := l.changes()[i]; !strings.Contains(got, want) {
			t.Errorf("change %d: got %s, want %s", i, got, want)
		}
	}
}

// A column that is NOT NULL by now was NULL when the row was written.
func TestLiveNullBeforeNotNull(t *testing.T) {
	l := newLive(t, testenv.SharedPostgres(t), "CREATE TABLE t (id int PRIMARY KEY, v int)")
	l.start()
	l.stop()
	l.exec("INSERT INTO t VALUES (1, 1)", "INSERT INTO t VALUES (2, NULL)", "UPDATE t SET v = 0 WHERE v IS NULL",
		"ALTER TABLE t ALTER COLUMN v SET NOT NULL, ALTER COLUMN v SET DEFAULT 7")
	l.start()
	l.until("c public.t", `{"id":2,"v":null}`)
	l.until("u public.t", `{"id":2,"v":0}`)
	if n := len(l.rec.versions); n != 2 || l.rec.versions[0].Columns[1].Nullable || !l.rec.versions[1].Columns[1].Nullable {
		t.Errorf("%d versions: %+v", n, l.rec.versions)
	}
	if d := l.rec.versions[0].Columns[1].Default; d.Text != "7" {
		t.Errorf("default %+v", d)
	}
}

func TestLiveEnumGrows(t *testing.T) {
	l := newLive(t, testenv.SharedPostgres(t), "CREATE TYPE mood AS ENUM ('sad')",
		"CREATE TABLE t (id int PRIMARY KEY, v mood, w mood[])")
	l.start()
	l.exec("INSERT INTO t VALUES (1, 'sad', '{sad}')")
	l.until("c public.t", `"id":1`)
	l.exec("ALTER TYPE mood ADD VALUE 'glad' BEFORE 'sad'", "INSERT INTO t VALUES (2, 'glad', '{glad}')",
		"ALTER TYPE mood RENAME VALUE 'glad' TO 'merry'", "INSERT INTO t VALUES (3, 'merry', '{sad,merry}')")
	l.until("c public.t", `"id":3,"v":"merry"`)
	l.until("c public.t", `{"id":2,"v":"glad","w":["glad"]}`)
	last := l.rec.versions[len(l.rec.versions)-1]
	if got := strings.Join(last.Columns[1].Type.Allowed, ","); !strings.Contains(got, "merry") || !strings.Contains(got, "glad") {
		t.Errorf("labels %s", got)
	}
}

// The table is gone when its rows are read.
func TestLiveDroppedTable(t *testing.T) {
	l := newLive(t, testenv.SharedPostgres(t), "CREATE TYPE mood AS ENUM ('sad')",
		"CREATE TABLE keep (id int PRIMARY KEY)", "CREATE TABLE t (b int, a int, m mood, n numeric(5,2), PRIMARY KEY (a, b))")
	l.start()
	l.stop()
	l.exec("INSERT INTO t VALUES (1, 2, 'sad', 1.5)", "DROP TABLE t", "DROP TYPE mood", "INSERT INTO keep VALUES (1)")
	l.start()
	l.until("c public.keep")
	l.until("c public.t", `key={"a":2,"b":1}`, `"m":"sad","n":"3/2"`)
}

func TestLiveCatalog(t *testing.T) {
	l := newLive(t, testenv.SharedPostgres(t), append(typeSetup,
		"CREATE DOMAIN code AS varchar(4) NOT NULL DEFAULT 'none'",
		`CREATE TABLE "T 1" (b int NOT NULL DEFAULT 5, a text NOT NULL DEFAULT 'it''s', n numeric(8,2) DEFAULT -1.50, f float8 DEFAULT 1e10,
			k boolean NOT NULL DEFAULT true, d date NOT NULL DEFAULT '2024-01-02', ts timestamp(3) DEFAULT '2024-01-02 03:04:05',
			tz timestamptz NOT NULL DEFAULT now(), ct date DEFAULT CURRENT_DATE, s bigserial, g int GENERATED ALWAYS AS IDENTITY,
			u uuid DEFAULT gen_random_uuid(), j jsonb NOT NULL DEFAULT '{}', m mood DEFAULT 'ok', c code, i interval DEFAULT '1 day',
			e int DEFAULT 1 + 2, nn text DEFAULT NULL, bb bytea DEFAULT '\x00', v varchar(3) DEFAULT 'a\b', arr int[] DEFAULT '{1}',
			x int GENERATED ALWAYS AS (b + 1) STORED, PRIMARY KEY (a, b))`)...)
	l.start()
	l.exec(`INSERT INTO "T 1" DEFAULT VALUES`)
	l.until("c public.T_1")
	version := l.rec.versions[0]
	if fmt.Sprint(version.Key) != "[1 0]" {
		t.Errorf("key %v", version.Key)
	}
	var got []string
	for _, c := range version.Columns {
		null := ""
		if c.Nullable {
			null = "?"
		}
		got = append(got, fmt.Sprintf("%s%s %d(%d,%d) default %d %s", c.Name, null, c.Type.Kind, c.Type.Precision, c.Type.Scale, c.Default.Kind, c.Default.Text))
	}
	golden(t, "catalog.txt", strings.Join(got, "\n")+"\n")
}

// A replica identity decides what a row before holds, and where the key comes from.
func TestLiveReplicaIdentities(t *testing.T) {
	l := newLive(t, testenv.SharedPostgres(t),
		"CREATE TABLE byindex (id int PRIMARY KEY, b int NOT NULL, a int NOT NULL, v text)",
		"CREATE UNIQUE INDEX byindex_ba ON byindex (b, a)", "ALTER TABLE byindex REPLICA IDENTITY USING INDEX byindex_ba",
		"CREATE TABLE isfull (id int PRIMARY KEY, v text)", "ALTER TABLE isfull REPLICA IDENTITY FULL",
		"CREATE TABLE nokey (v text)", "ALTER TABLE nokey REPLICA IDENTITY FULL")
	l.start()
	for _, table := range []string{"byindex (id, b, a, v) VALUES (1, 2, 3, 'x')", "isfull VALUES (1, 'x')", "nokey VALUES ('x')"} {
		name, _, _ := strings.Cut(table, " ")
		l.exec("INSERT INTO "+table, "UPDATE "+name+" SET v = 'y'", "DELETE FROM "+name)
	}
	l.until("c public.byindex", `key={"a":3,"b":2}`)
	l.until("u public.byindex", "before=null")
	l.until("d public.byindex", `before={"a":3,"b":2,"id":0,"v":null}`)
	l.until("tombstone public.byindex", `key={"a":3,"b":2}`)
	l.until("u public.isfull", `key={"id":1} before={"id":1,"v":"x"} after={"id":1,"v":"y"}`)
	l.until("d public.isfull", `before={"id":1,"v":"y"}`)
	l.until("tombstone public.isfull")
	l.until("u public.nokey", `key=none before={"v":"x"} after={"v":"y"}`)
	l.until("d public.nokey", `key=none before={"v":"y"}`)
	for _, line := range l.changes() {
		if strings.HasPrefix(line, "tombstone public.nokey") {
			t.Error("a table without a key has tombstones")
		}
	}
	if key := l.rec.versions[0].Key; fmt.Sprint(key) != "[1 2]" {
		t.Errorf("key of byindex: %v", key)
	}
}

// Every type that can be TOASTed: large, stored outside, and not touched by an UPDATE.
func TestLiveUnchangedToast(t *testing.T) {
	const mark = "__debezium_unavailable_value"
	l := newLive(t, testenv.SharedPostgres(t))
	cases := map[string]struct{ typ, value, want string }{
		"txt":   {"text", "repeat('x', 5000)", `"` + mark + `"`},
		"js":    {"jsonb", `to_jsonb(repeat('x', 5000))`, `"` + mark + `"`},
		"xm":    {"xml", "xmlelement(name a, repeat('x', 5000))", `"` + mark + `"`},
		"bin":   {"bytea", `decode(repeat('ab', 5000), 'hex')`, `"` + fmt.Sprintf("%x", mark) + `"`},
		"texts": {"text[]", "array_fill('abc'::text, ARRAY[2000])", `["` + mark + `"]`},
		"ints":  {"int[]", "array_fill(7, ARRAY[2000])", "[95,95,100,"},
		"uuids": {"uuid[]", "array_fill(gen_random_uuid(), ARRAY[500])", `["` + nameUUID(mark) + `"]`},
	}
	for name, c := range cases {
		l.exec(fmt.Sprintf("CREATE TABLE %s (id int PRIMARY KEY, n int, v %s)", name, c.typ),
			fmt.Sprintf("ALTER TABLE %s ALTER COLUMN v SET STORAGE EXTERNAL", name),
			fmt.Sprintf("CREATE TABLE %s_full (LIKE %s INCLUDING ALL)", name, name), fmt.Sprintf("ALTER TABLE %s_full REPLICA IDENTITY FULL", name))
	}
	l.exec("CREATE TABLE num (id int PRIMARY KEY, n int, v numeric)")
	l.start()
	for name, c := range cases {
		for _, table := range []string{name, name + "_full"} {
			l.exec(fmt.Sprintf("INSERT INTO %s VALUES (1, 1, %s)", table, c.value), fmt.Sprintf("UPDATE %s SET n = 2", table))
		}
	}
	for name, c := range cases {
		if line := l.until("u public."+name+" ", "before=null"); !strings.Contains(line, `"v":`+c.want) {
			t.Errorf("%s: %.300s", name, line)
		}
		if line := l.until("u public."+name+"_full ", "before={"); strings.Contains(line, mark) || strings.Contains(line, "[95,95") {
			t.Errorf("%s_full: %.300s", name, line)
		}
	}
	// numeric has no marker.
	l.exec("ALTER TABLE num ALTER COLUMN v SET STORAGE EXTERNAL",
		"INSERT INTO num VALUES (1, 1, repeat('1234567890', 1000)::numeric)", "UPDATE num SET n = 2")
	wantStop(t, l.wantEnd(), `column "v" of table public.num`, "REPLICA IDENTITY FULL")
}

func TestLivePartitions(t *testing.T) {
	l := newLive(t, testenv.SharedPostgres(t), "CREATE TABLE p (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
		"CREATE TABLE p1 PARTITION OF p FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')", "CREATE TABLE other (id int PRIMARY KEY)")
	l.cfg.Tables = []string{"public.p"}
	l.start()
	l.exec("INSERT INTO p VALUES (1, '2024-05-06')", "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')",
		"INSERT INTO p VALUES (2, '2025-05-06')", "UPDATE p SET at = '2025-07-08' WHERE id = 1")
	l.until("c public.p1", `"id":1`)
	l.until("c public.p2", `"id":2`)
	l.until("d public.p1", `"id":1`)
	l.until("c public.p2", `"id":1`)
	l.stop()
	l.start() // the configuration still fits
	l.exec("TRUNCATE p")
	l.until("t public.p2")
}

// The list of tables changes: the publication follows.
func TestLiveTableListChanges(t *testing.T) {
	l := newLive(t, testenv.SharedPostgres(t), "CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE b (id int PRIMARY KEY)",
		`CREATE SCHEMA "we""ird"`, `CREATE TABLE "we""ird"."t a" (id int PRIMARY KEY)`)
	l.cfg.Tables = []string{"public.a"}
	l.start()
	l.exec("INSERT INTO b VALUES (1)", "INSERT INTO a VALUES (1)")
	l.until("c public.a", `"id":1`)
	l.stop()
	l.cfg.Tables = []string{"public.b", `we"ird.*`}
	l.start()
	l.wait("idle", func() bool { return l.rec.idles > 0 })
	l.exec("INSERT INTO a VALUES (2)", "INSERT INTO b VALUES (2)", `INSERT INTO "we""ird"."t a" VALUES (3)`)
	l.until("c we_ird.t_a", `"id":3`)
	l.until("c public.b", `"id":2`)
	for _, line := range l.changes() {
		if strings.Contains(line, "public.b") && strings.Contains(line, `{"id":1}`) || strings.Contains(line, "public.a") && strings.Contains(line, `{"id":2}`) {
			t.Error(line)
		}
	}
}
