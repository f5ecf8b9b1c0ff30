package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/doctor"
	"github.com/tailrace/tailrace/deploy/testenv"
)

// fault is one that is made, found by its code, and mended.
type fault struct {
	name     string
	make     func(*ward)
	code     string
	severity string
	path     string // that the finding's begins with

	// person does what the finding's words say where no SQL can. Without it the finding's
	// statements are run, which there then must be.
	person func(*ward)

	version  int               // of a server of its own; 0: the shared one, unless there are settings
	settings map[string]string // of a server of its own
	restarts bool              // the mend asks for a restart
}

const (
	inURL    = "captures[0].postgres.url"
	inSlot   = "captures[0].postgres.slot"
	inTables = "captures[0].postgres.tables"
	inSource = "captures[0].postgres"
	toURL    = "sinks[0].postgres.url"
	toTarget = "sinks[0].postgres"
)

// fill writes the ward's names into a statement.
func (w *ward) fill(sql string) string {
	return strings.NewReplacer("READER", w.reader, "WRITER", w.writer, "NAME", w.name, "SOURCE", w.source, "TARGET", w.target).Replace(sql)
}

// source makes a fault in the source database, target one in the target's.
func source(sql ...string) func(*ward) {
	return func(w *ward) {
		for _, s := range sql {
			w.onSource(w.fill(s))
		}
	}
}

func target(sql ...string) func(*ward) {
	return func(w *ward) {
		for _, s := range sql {
			w.onTarget(w.fill(s))
		}
	}
}

// owning makes the reader the owner of the tables, to make the publication itself.
func owning(w *ward) {
	source("DROP PUBLICATION NAME", "ALTER TABLE orders OWNER TO READER", "ALTER TABLE sales.items OWNER TO READER", "GRANT CREATE ON DATABASE SOURCE TO READER")(w)
	w.capture["create_publication"] = "true"
}

func then(steps ...func(*ward)) func(*ward) {
	return func(w *ward) {
		for _, s := range steps {
			s(w)
		}
	}
}

var ownServer = map[string]string{"max_connections": "60"} // as all have

var sourceFaults = []fault{
	{name: "nobody there", make: func(w *ward) {
		w.sourceURL = strings.Replace(w.sourceURL, fmt.Sprint(w.server.Port), port(freeAddress(w.t)), 1)
	},
		code: "PG_CONNECT", severity: doctor.Error, path: inURL, person: func(w *ward) { w.sourceURL = w.server.URL(w.reader, rolePassword, w.source) }},
	{name: "wrong password", make: func(w *ward) { w.sourceURL = w.server.URL(w.reader, "wrong", w.source) },
		code: "PG_AUTH", severity: doctor.Error, path: inURL, person: func(w *ward) { w.sourceURL = w.server.URL(w.reader, rolePassword, w.source) }},
	{name: "no database", make: func(w *ward) { w.sourceURL = w.server.URL(w.reader, rolePassword, "nowhere") },
		code: "PG_DATABASE", severity: doctor.Error, path: inURL, person: func(w *ward) { w.sourceURL = w.server.URL(w.reader, rolePassword, w.source) }},
	{name: "no login", make: source("ALTER ROLE READER NOLOGIN"), code: "PG_LOGIN", severity: doctor.Error, path: inURL},
	{name: "no connect", make: source("REVOKE CONNECT ON DATABASE SOURCE FROM PUBLIC, READER"), code: "PG_GRANT_CONNECT", severity: doctor.Error, path: inURL},
	{name: "no connection left", make: source("ALTER ROLE READER CONNECTION LIMIT 0"), code: "PG_CONNECTIONS", severity: doctor.Error, path: inURL},
	{name: "wal_level", settings: map[string]string{"wal_level": "replica"}, make: func(*ward) {}, code: "PG_WAL_LEVEL", severity: doctor.Error, path: inSource, restarts: true},
	{name: "wal_level on 14", version: 14, settings: map[string]string{"wal_level": "replica"}, make: func(*ward) {}, code: "PG_WAL_LEVEL", severity: doctor.Error, path: inSource, restarts: true},
	{name: "no slot left", settings: map[string]string{"max_replication_slots": "1"}, make: source("SELECT pg_create_physical_replication_slot('other')"),
		code: "PG_SLOTS", severity: doctor.Error, path: inSlot, restarts: true},
	{name: "no slot left, and its own is there", settings: map[string]string{"max_replication_slots": "1"}, make: source("SELECT pg_create_logical_replication_slot('NAME', 'pgoutput')"),
		code: "PG_SLOTS", severity: doctor.Warning, path: inSlot, restarts: true},
	{name: "no walsender left", settings: map[string]string{"max_wal_senders": "1"}, make: func(w *ward) { w.replicate() },
		code: "PG_SENDERS", severity: doctor.Error, path: inSource, restarts: true},
	{name: "no replication", make: source("ALTER ROLE READER NOREPLICATION"), code: "PG_REPLICATION", severity: doctor.Error, path: inURL},
	{name: "a transaction that does not end", make: func(w *ward) { w.hold("INSERT INTO private VALUES (1)") }, code: "PG_SLOT_WAIT", severity: doctor.Warning, path: inSlot},
	{name: "a foreign slot", make: source("SELECT pg_create_logical_replication_slot('NAME', 'test_decoding')"), code: "PG_SLOT_FOREIGN", severity: doctor.Error, path: inSlot,
		person: func(w *ward) { w.capture["slot"] = w.name + "_own" }},
	{name: "a lost slot", settings: map[string]string{"max_slot_wal_keep_size": "1MB", "max_wal_size": "32MB"},
		make: then(source("SELECT pg_create_logical_replication_slot('NAME', 'pgoutput')"), fillLog(4)),
		code: "PG_SLOT_LOST", severity: doctor.Error, path: inSlot, person: source("SELECT pg_drop_replication_slot('NAME')")},
	{name: "a slot that nobody reads", settings: map[string]string{"max_slot_wal_keep_size": "64MB", "max_wal_size": "1GB"},
		make: then(source("SELECT pg_create_logical_replication_slot('NAME', 'pgoutput')"), fillLog(3)),
		code: "PG_SLOT_RETAINS", severity: doctor.Warning, path: inSlot, person: source("SELECT pg_drop_replication_slot('NAME')")},
	{name: "slots are kept for a short time", settings: map[string]string{"max_slot_wal_keep_size": "512MB"}, make: func(*ward) {},
		code: "PG_WAL_KEEP", severity: doctor.Warning, path: inSource},
	{name: "a slot without its publication", make: source("SELECT pg_create_logical_replication_slot('NAME', 'pgoutput')", "DROP PUBLICATION NAME"),
		code: "PG_SLOT_PUBLICATION", severity: doctor.Error, path: inSlot,
		person: source("CREATE PUBLICATION NAME FOR TABLE orders, sales.items", "SELECT pg_drop_replication_slot('NAME')")},
	{name: "no publication", make: source("DROP PUBLICATION NAME"), code: "PG_PUBLICATION", severity: doctor.Error, path: inSource + ".publication"},
	{name: "may not make the publication", make: then(source("DROP PUBLICATION NAME"), func(w *ward) { w.capture["create_publication"] = "true" }),
		code: "PG_PUBLICATION", severity: doctor.Error, path: inSource + ".publication"},
	{name: "a table is not published", make: source("CREATE TABLE sales.more (id int PRIMARY KEY)", "GRANT SELECT ON sales.more TO READER"),
		code: "PG_PUBLICATION_TABLES", severity: doctor.Error, path: inTables},
	{name: "a table too many is published", make: source("ALTER PUBLICATION NAME ADD TABLE private"), code: "PG_PUBLICATION_TABLES", severity: doctor.Error, path: inTables},
	{name: "a table is locked", make: func(w *ward) { owning(w); w.end = w.hold("LOCK TABLE orders") }, code: "PG_PUBLICATION_LOCKED", severity: doctor.Error, path: inSource + ".publication",
		person: func(w *ward) { w.end() }},
	{name: "no such table", make: func(w *ward) { w.capture["tables"] = `["public.absent"]` }, code: "PG_TABLES", severity: doctor.Error, path: inTables,
		person: func(w *ward) { w.capture["tables"] = `["public.orders", "sales.*"]` }},
	{name: "a table without a key", make: func(w *ward) {
		owning(w)
		source("CREATE TABLE sales.keyless (id int)", "ALTER TABLE sales.keyless OWNER TO READER")(w)
	}, code: "PG_NO_KEY", severity: doctor.Error, path: inTables},
	{name: "a published table without a key", make: source("CREATE TABLE sales.keyless (id int)", "GRANT SELECT ON sales.keyless TO READER", "ALTER PUBLICATION NAME ADD TABLE sales.keyless"),
		code: "PG_NO_KEY", severity: doctor.Warning, path: inTables},
	{name: "no select", make: source("REVOKE SELECT ON orders FROM READER"), code: "PG_SELECT", severity: doctor.Error, path: inTables},
	{name: "no select, and the first start is past", make: source("SELECT pg_create_logical_replication_slot('NAME', 'pgoutput')", "REVOKE SELECT ON orders FROM READER"),
		code: "PG_SELECT", severity: doctor.Warning, path: inTables},
	{name: "no usage", make: source("REVOKE USAGE ON SCHEMA sales FROM READER"), code: "PG_SELECT", severity: doctor.Error, path: inTables},
	{name: "no select on 18", version: 18, make: source("REVOKE SELECT ON orders FROM READER"), code: "PG_SELECT", severity: doctor.Error, path: inTables},
	{name: "row-level security", make: source("ALTER TABLE orders ENABLE ROW LEVEL SECURITY"), code: "PG_ROW_SECURITY", severity: doctor.Error, path: inTables},
	{name: "a table that is locked", make: func(w *ward) { w.end = w.hold("LOCK TABLE orders") }, code: "PG_READ", severity: doctor.Error, path: inTables, person: func(w *ward) { w.end() }},
	{name: "asynchronous commits of a database", make: source("ALTER DATABASE SOURCE SET synchronous_commit = off"), code: "PG_SYNCHRONOUS_COMMIT", severity: doctor.Warning, path: inSource},
	{name: "asynchronous commits of a role", make: source("ALTER ROLE WRITER IN DATABASE SOURCE SET synchronous_commit = off"), code: "PG_SYNCHRONOUS_COMMIT", severity: doctor.Warning, path: inSource},
	{name: "asynchronous commits of the server", settings: map[string]string{"synchronous_commit": "off"}, make: func(*ward) {}, code: "PG_SYNCHRONOUS_COMMIT", severity: doctor.Warning, path: inSource},
	{name: "a small wal_sender_timeout", settings: map[string]string{"wal_sender_timeout": "3s"}, make: func(*ward) {}, code: "PG_WAL_SENDER_TIMEOUT", severity: doctor.Warning, path: inSource},
	{name: "no wal_sender_timeout", settings: map[string]string{"wal_sender_timeout": "0"}, make: func(*ward) {}, code: "PG_WAL_SENDER_TIMEOUT", severity: doctor.Warning, path: inSource},
	{name: "idle slots are lost", version: 18, settings: map[string]string{"idle_replication_slot_timeout": "1h"}, make: func(*ward) {}, code: "PG_SLOT_IDLE_TIMEOUT", severity: doctor.Warning, path: inSource},
	{name: "a standby", settings: ownServer, make: (*ward).becomeStandby, code: "PG_STANDBY", severity: doctor.Error, path: inURL, person: (*ward).promote},
	{name: "superuser", make: source("ALTER ROLE READER SUPERUSER"), code: "PG_ROLE_SUPERUSER", severity: doctor.Warning, path: inURL},
	{name: "creates databases", make: source("ALTER ROLE READER CREATEDB"), code: "PG_ROLE_CREATEDB", severity: doctor.Warning, path: inURL},
	{name: "creates roles", make: source("ALTER ROLE READER CREATEROLE"), code: "PG_ROLE_CREATEROLE", severity: doctor.Warning, path: inURL},
	{name: "bypasses row-level security", make: source("ALTER ROLE READER BYPASSRLS"), code: "PG_ROLE_BYPASSRLS", severity: doctor.Warning, path: inURL},
	{name: "runs programs", make: source("GRANT pg_execute_server_program, pg_write_all_data TO READER"), code: "PG_ROLE_MEMBER", severity: doctor.Warning, path: inURL},
	{name: "owns tables", make: source("ALTER TABLE orders OWNER TO READER"), code: "PG_ROLE_OWNER", severity: doctor.Warning, path: inURL, person: source("ALTER TABLE orders OWNER TO postgres", "GRANT SELECT ON orders TO READER")},
	{name: "writes tables", make: source("GRANT UPDATE ON orders TO READER"), code: "PG_ROLE_WRITES", severity: doctor.Warning, path: inURL},
}

var targetFaults = []fault{
	{name: "nobody there", make: func(w *ward) {
		w.targetURL = strings.Replace(w.targetURL, fmt.Sprint(w.server.Port), port(freeAddress(w.t)), 1)
	},
		code: "TARGET_CONNECT", severity: doctor.Error, path: toURL, person: func(w *ward) { w.targetURL = w.server.URL(w.writer, rolePassword, w.target) }},
	{name: "wrong password", make: func(w *ward) { w.targetURL = w.server.URL(w.writer, "wrong", w.target) },
		code: "TARGET_AUTH", severity: doctor.Error, path: toURL, person: func(w *ward) { w.targetURL = w.server.URL(w.writer, rolePassword, w.target) }},
	{name: "no database", make: func(w *ward) { w.targetURL = w.server.URL(w.writer, rolePassword, "nowhere") },
		code: "TARGET_DATABASE", severity: doctor.Error, path: toURL, person: func(w *ward) { w.targetURL = w.server.URL(w.writer, rolePassword, w.target) }},
	{name: "no login", make: target("ALTER ROLE WRITER NOLOGIN"), code: "TARGET_LOGIN", severity: doctor.Error, path: toURL},
	{name: "no connect", make: target("REVOKE CONNECT ON DATABASE TARGET FROM PUBLIC, WRITER"), code: "TARGET_GRANT_CONNECT", severity: doctor.Error, path: toURL},
	{name: "no connection left", make: target("ALTER ROLE WRITER CONNECTION LIMIT 0"), code: "TARGET_CONNECTIONS", severity: doctor.Error, path: toURL},
	{name: "read-only role", make: target("ALTER ROLE WRITER SET default_transaction_read_only = on"), code: "TARGET_READ_ONLY", severity: doctor.Error, path: toURL},
	{name: "read-only database", make: target("ALTER DATABASE TARGET SET default_transaction_read_only = on"), code: "TARGET_READ_ONLY", severity: doctor.Error, path: toURL,
		person: func(w *ward) {
			w.exec("postgres", w.fill("ALTER DATABASE TARGET RESET default_transaction_read_only"))
		}},
	{name: "no schema for the position", make: target("DROP SCHEMA tailrace"), code: "TARGET_POSITION", severity: doctor.Error, path: toTarget},
	{name: "another's table of positions", make: target("REVOKE ALL ON SCHEMA tailrace FROM WRITER", `CREATE TABLE tailrace."position" (sink text not null, topic text not null, "partition" integer not null,
		fence bigint not null, next_offset bigint not null default 0, epoch bigint not null default 0, file bigint not null default 0, pos bigint not null default 0, "row" bigint not null default 0,
		n bigint not null default 0, filled boolean not null default false, backend integer not null, updated_at timestamptz not null default now(), primary key (sink, topic, "partition"))`),
		code: "TARGET_POSITION", severity: doctor.Error, path: toTarget},
	{name: "no temporary tables", make: target("REVOKE TEMPORARY ON DATABASE TARGET FROM PUBLIC, WRITER"), code: "TARGET_TEMPORARY", severity: doctor.Error, path: toTarget},
	{name: "no create", make: target("REVOKE CREATE ON SCHEMA copy FROM WRITER"), code: "TARGET_CREATE", severity: doctor.Error, path: toTarget + ".schema"},
	{name: "no create, and all are there", make: target("CREATE TABLE copy.items (id int PRIMARY KEY)", "GRANT ALL ON copy.items TO WRITER", "REVOKE CREATE ON SCHEMA copy FROM WRITER"),
		code: "TARGET_CREATE", severity: doctor.Warning, path: toTarget + ".schema"},
	{name: "no schema", make: target("DROP SCHEMA copy CASCADE"), code: "TARGET_CREATE", severity: doctor.Error, path: toTarget + ".schema"},
	{name: "schemas as the source's", make: func(w *ward) { delete(w.sink, "schema") }, code: "TARGET_CREATE", severity: doctor.Error, path: toTarget + ".schema"},
	{name: "a table that takes no changes", make: target("REVOKE UPDATE, TRUNCATE ON copy.orders FROM WRITER"), code: "TARGET_TABLE", severity: doctor.Error, path: toTarget},
	{name: "a view", make: target("DROP TABLE copy.orders", "CREATE VIEW copy.orders AS SELECT 1 AS id"), code: "TARGET_TABLE", severity: doctor.Error, path: toTarget, person: target("DROP VIEW copy.orders")},
	{name: "a table without a key", make: target("ALTER TABLE copy.orders DROP CONSTRAINT orders_pkey"), code: "TARGET_KEY", severity: doctor.Warning, path: toTarget,
		person: target("ALTER TABLE copy.orders ADD PRIMARY KEY (id)")},
	{name: "row-level security", make: target("ALTER TABLE copy.orders ENABLE ROW LEVEL SECURITY"), code: "TARGET_ROW_SECURITY", severity: doctor.Warning, path: toTarget},
	{name: "superuser", make: target("ALTER ROLE WRITER SUPERUSER"), code: "TARGET_ROLE_SUPERUSER", severity: doctor.Warning, path: toURL},
	{name: "creates databases", make: target("ALTER ROLE WRITER CREATEDB"), code: "TARGET_ROLE_CREATEDB", severity: doctor.Warning, path: toURL},
	{name: "creates roles", make: target("ALTER ROLE WRITER CREATEROLE"), code: "TARGET_ROLE_CREATEROLE", severity: doctor.Warning, path: toURL},
	{name: "replicates", make: target("ALTER ROLE WRITER REPLICATION"), code: "TARGET_ROLE_REPLICATION", severity: doctor.Warning, path: toURL},
	{name: "reads everything", make: target("GRANT pg_read_all_data TO WRITER"), code: "TARGET_ROLE_MEMBER", severity: doctor.Warning, path: toURL},
	{name: "its own source", make: func(w *ward) {
		w.targetURL = w.server.URL(w.writer, rolePassword, w.source)
		w.sink["schema"] = "sales"
	},
		code: "CONFIG_LOOP", severity: doctor.Error, path: toTarget, person: func(w *ward) { w.targetURL = w.server.URL(w.writer, rolePassword, w.target); w.sink["schema"] = "copy" }},
	{name: "on 14", version: 14, make: target("REVOKE UPDATE ON copy.orders FROM WRITER"), code: "TARGET_TABLE", severity: doctor.Error, path: toTarget},
	{name: "on 18", version: 18, make: target("REVOKE CREATE ON SCHEMA copy FROM WRITER"), code: "TARGET_CREATE", severity: doctor.Error, path: toTarget + ".schema"},
}

var sharedFaults = []fault{
	{name: "the data directory is a file", make: func(w *ward) {
		file := filepath.Join(w.t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			w.t.Fatal(err)
		}
		w.broker = fmt.Sprintf("{ embedded: { dir: %q, listen: %q, min_free: 1 } }", file, freeAddress(w.t))
	}, code: "BROKER_DIR", severity: doctor.Error, path: "broker.embedded.dir", person: func(w *ward) { w.broker = embeddedBroker(w.t) }},
	{name: "no space", make: func(w *ward) {
		w.broker = fmt.Sprintf("{ embedded: { dir: %q, listen: %q, min_free: 900000GiB } }", w.t.TempDir(), freeAddress(w.t))
	}, code: "BROKER_SPACE", severity: doctor.Error, path: "broker.embedded.min_free", person: func(w *ward) { w.broker = embeddedBroker(w.t) }},
	{name: "the broker's port is taken", make: func(w *ward) {
		w.broker = fmt.Sprintf("{ embedded: { dir: %q, listen: %q, min_free: 1 } }", w.t.TempDir(), w.taken())
	},
		code: "BROKER_LISTEN", severity: doctor.Error, path: "broker.embedded.listen", person: func(w *ward) { w.broker = embeddedBroker(w.t) }},
	{name: "no broker", make: func(w *ward) { w.broker = fmt.Sprintf("{ kafka: { brokers: [%q] } }", freeAddress(w.t)) },
		code: "BROKER_CONNECT", severity: doctor.Error, path: "broker.kafka", person: func(w *ward) { w.broker = embeddedBroker(w.t) }},
	{name: "no certificate", make: func(w *ward) { w.broker = `{ kafka: { brokers: ["127.0.0.1:1"], tls: { ca: "nowhere.pem" } } }` },
		code: "BROKER_SETTINGS", severity: doctor.Error, path: "broker.kafka", person: func(w *ward) { w.broker = embeddedBroker(w.t) }},
	{name: "too few replicas", make: func(w *ward) { w.broker = kafkaBroker(w.t); w.replication = 3 },
		code: "BROKER_CREATE", severity: doctor.Error, path: "broker.kafka", person: func(w *ward) { w.replication = 1 }},
	{name: "no registry", make: func(w *ward) { w.registry = fmt.Sprintf("{ url: %q }", "http://"+freeAddress(w.t)) },
		code: "REGISTRY_CONNECT", severity: doctor.Error, path: "registry.url", person: func(w *ward) { w.registry = ownRegistry(w.t) }},
	{name: "the registry wants a password", make: func(w *ward) { w.registry = fmt.Sprintf("{ url: %q }", w.answers(http.StatusUnauthorized)) },
		code: "REGISTRY_AUTH", severity: doctor.Error, path: "registry.url", person: func(w *ward) { w.registry = ownRegistry(w.t) }},
	{name: "the registry's port is taken", make: func(w *ward) {
		w.registry = fmt.Sprintf("{ serve: %q }", strings.TrimPrefix(w.answers(http.StatusNotFound), "http://"))
	},
		code: "REGISTRY_LISTEN", severity: doctor.Error, path: "registry.serve", person: func(w *ward) { w.registry = ownRegistry(w.t) }},
	{name: "the port of http is taken", make: func(w *ward) { w.http = strings.TrimPrefix(w.answers(http.StatusNotFound), "http://") },
		code: "HTTP_LISTEN", severity: doctor.Error, path: "http.listen", person: func(w *ward) { w.http = freeAddress(w.t) }},
}

func port(address string) string { _, p, _ := net.SplitHostPort(address); return p }

// taken is an address where somebody listens who never answers.
func (w *ward) taken() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

// answers is the URL of a server that always answers with code.
func (w *ward) answers(code int) string {
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(code) }))
	w.t.Cleanup(s.Close)
	return s.URL
}

// fillLog writes n files of log.
func fillLog(n int) func(*ward) {
	return func(w *ward) {
		for range n {
			w.onSource("INSERT INTO private SELECT i FROM generate_series(1, 1000) i", "TRUNCATE private", "SELECT pg_switch_wal()", "CHECKPOINT")
		}
	}
}

// Each prepared fault is found by its code, and after what the finding says has been done
// it is not found any more.
func TestDoctorFaults(t *testing.T) {
	t.Parallel()
	server := testenv.NewPostgres(t, testenv.PGOptions{}) // what other tests have in theirs, doctor would find
	for kind, faults := range map[string][]fault{"source": sourceFaults, "target": targetFaults, "shared": sharedFaults} {
		t.Run(kind, func(t *testing.T) {
			for _, f := range faults {
				t.Run(f.name, func(t *testing.T) { f.test(t, server) })
			}
		})
	}
}

// test has the fault in server, or in one of its own if it is about the whole server.
func (f *fault) test(t *testing.T, server *testenv.Postgres) {
	if f.version != 0 || f.settings != nil {
		server = testenv.NewPostgres(t, testenv.PGOptions{Version: f.version, Settings: f.settings})
	}
	w := newWard(t, server)
	f.make(w)
	findings := w.examine()
	it := found(findings, f.code)
	if it == nil {
		t.Fatalf("%s is not found:\n%s", f.code, bad(findings))
	}
	if it.Severity != f.severity || !strings.HasPrefix(it.Path, f.path) || it.Restart != f.restarts {
		t.Errorf("found %+v, want %s at %s, with restart %v", it, f.severity, f.path, f.restarts)
	}
	f.mend(w, findings)
	if again := w.examine(); found(again, f.code) != nil {
		t.Errorf("is still found:\n%s", bad(again))
	}
}

// mend does what the findings with the fault's code say.
func (f *fault) mend(w *ward, findings []doctor.Finding) {
	w.t.Helper()
	if f.person != nil {
		f.person(w)
		return
	}
	for _, it := range findings {
		if it.Code != f.code || it.Severity == doctor.OK {
			continue
		}
		if len(it.SQL) == 0 {
			w.t.Fatalf("%+v has no SQL", it)
		}
		w.exec(map[bool]string{true: w.target, false: w.source}[strings.HasPrefix(it.Path, "sinks[")], it.SQL...)
		if it.Restart {
			w.restart()
		}
		if strings.Contains(strings.Join(it.SQL, ";"), "pg_reload_conf") { // which takes a moment
			w.until("reloaded", func() bool { return found(w.examine(), it.Code) == nil })
		}
	}
}

// replicate keeps a walsender busy.
func (w *ward) replicate() {
	w.t.Helper()
	conf, err := pgconn.ParseConfig(w.server.AdminURL(w.source))
	if err != nil {
		w.t.Fatal(err)
	}
	conf.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(w.t.Context(), conf)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close(context.Background()) })
}

// becomeStandby starts the server as a standby that follows nobody.
func (w *ward) becomeStandby() {
	w.t.Helper()
	w.onSource("COPY (SELECT) TO PROGRAM 'touch " + filepath.Join(w.server.Dir, "data", "standby.signal") + "'")
	w.restart()
}

func (w *ward) promote() {
	w.t.Helper()
	w.onSource("SELECT pg_promote(true, 60)")
}
