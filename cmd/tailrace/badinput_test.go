package main

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/segmentio/kafka-go"

	"github.com/tailrace/tailrace/deploy/testenv"
	"github.com/tailrace/tailrace/schemas/registry"
)

// badCase is a world in which a capture cannot run.
type badCase struct {
	name string
	// world makes it; db has a table orders with a key.
	world func(t *testing.T, pg *testenv.Postgres, db string) settings
	code  int
	error string // part of what is said
	hint  string // part of what to do
}

// on is a capture of db on a broker in its process.
func on(t *testing.T, url string) settings {
	return settings{name: testenv.Unique("bad"), broker: embeddedBroker(t), registry: ownRegistry(t), url: url}
}

// Each thing that can be wrong ends the process with a clear error, a hint, and the
// documented exit code.
func TestBadInput(t *testing.T) {
	for _, c := range []badCase{
		{"wrong password", func(t *testing.T, pg *testenv.Postgres, db string) settings {
			return on(t, pg.URL("postgres", "canary-4711", db))
		}, 3, "password authentication failed", "check the password"},
		{"no such database", func(t *testing.T, pg *testenv.Postgres, _ string) settings {
			return on(t, pg.AdminURL("nowhere"))
		}, 3, `database "nowhere" does not exist`, "must exist"},
		{"missing privilege", func(t *testing.T, pg *testenv.Postgres, db string) settings {
			user := strings.ReplaceAll(testenv.Unique("u"), "-", "_")
			sql(t, pg, db, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD 'pw-4711'", user), "ALTER TABLE orders OWNER TO "+user,
				fmt.Sprintf("GRANT CREATE ON DATABASE %q TO %s", db, user))
			return on(t, pg.URL(user, "pw-4711", db))
		}, 3, "replication", "REPLICATION"},
		{"no such table", func(t *testing.T, pg *testenv.Postgres, db string) settings {
			s := on(t, pg.AdminURL(db))
			s.postgres = ", tables: [public.ordres]"
			return s
		}, 2, "there is no table public.ordres", "write schema.table"},
		{"table without key", func(t *testing.T, pg *testenv.Postgres, db string) settings {
			sql(t, pg, db, "CREATE TABLE keyless (a int)")
			return on(t, pg.AdminURL(db))
		}, 2, "no key: once published, UPDATE and DELETE would fail on public.keyless", "REPLICA IDENTITY FULL"},
		{"topics missing and not to be created", func(t *testing.T, pg *testenv.Postgres, db string) settings {
			s := on(t, pg.AdminURL(db))
			s.more = "    topics: { create: false }\n"
			return s
		}, 3, "topic", "create"},
		{"no such CA file", func(t *testing.T, pg *testenv.Postgres, db string) settings {
			s := on(t, pg.AdminURL(db))
			s.broker = "{ kafka: { brokers: [127.0.0.1:1], tls: { ca: /nowhere/ca.pem } } }"
			return s
		}, 2, "broker.kafka.tls.ca", "readable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			pg := testenv.SharedPostgres(t)
			db := pg.CreateDatabase(t)
			sql(t, pg, db, "CREATE TABLE orders (id bigint PRIMARY KEY, note text)")
			c.expect(t, c.world(t, pg, db).configure(t).start(t))
		})
	}
}

// expect waits for the end and looks at what was said.
func (c badCase) expect(t *testing.T, p *process) {
	t.Helper()
	if code := p.exit(); code != c.code {
		t.Errorf("exit code %d, want %d", code, c.code)
	}
	said := p.log.String()
	_, failure, _ := strings.Cut("\n"+said, "\nerror: ")
	failure, hint, _ := strings.Cut(failure, "\nhint: ")
	if !strings.Contains(failure, c.error) || !strings.Contains(hint, c.hint) {
		t.Errorf("said\n%s", said)
	}
}

func sql(t *testing.T, pg *testenv.Postgres, db string, statements ...string) {
	t.Helper()
	if err := pg.Exec(t.Context(), db, statements...); err != nil {
		t.Fatal(err)
	}
}

// A log without what is needed is refused.
func TestWalLevel(t *testing.T) {
	pg := testenv.NewPostgres(t, testenv.PGOptions{Settings: map[string]string{"wal_level": "replica"}})
	c := badCase{code: 3, error: "wal_level", hint: "ALTER SYSTEM SET wal_level = logical"}
	c.expect(t, on(t, pg.AdminURL("postgres")).configure(t).start(t))
}

// A slot that another process reads is waited for, then its reader is named. Afterwards it
// can be read.
func TestSlotInUse(t *testing.T) {
	pg := testenv.SharedPostgres(t)
	db := pg.CreateDatabase(t)
	sql(t, pg, db, "CREATE TABLE orders (id bigint PRIMARY KEY, note text)")
	s := on(t, pg.AdminURL(db)+"&options=-c%20wal_sender_timeout%3D1000")
	s.more = "    snapshot: never\n"
	first := s.configure(t).start(t)
	first.ready()
	s.broker, s.registry = embeddedBroker(t), ownRegistry(t)
	c := badCase{code: 3, error: fmt.Sprintf("slot %q is in use by process ", s.slot()), hint: "pg_terminate_backend"}
	second := s.configure(t).start(t)
	c.expect(t, second)
	if !strings.Contains(second.log.String(), "tailrace") {
		t.Errorf("the reader is not named: %s", second.log.String())
	}
	first.ready()
	first.stop(syscall.SIGTERM, 0)
	dropSlot(t, pg, db, s.slot())
}

// A slot that is gone cannot be made again without losing changes: stop.
func TestSlotGone(t *testing.T) {
	pg := testenv.SharedPostgres(t)
	db := pg.CreateDatabase(t)
	sql(t, pg, db, "CREATE TABLE orders (id bigint PRIMARY KEY, note text)")
	s := on(t, pg.AdminURL(db))
	in := s.configure(t)
	p := in.start(t)
	p.ready()
	sql(t, pg, db, "INSERT INTO orders VALUES (1, 'one')")
	in.tail(t, s.name+".public.orders", 1)
	p.stop(syscall.SIGTERM, 0)
	dropSlot(t, pg, db, s.slot())
	sql(t, pg, db, "INSERT INTO orders VALUES (2, 'lost to a new slot')")
	c := badCase{code: 1, error: "slot", hint: "when_needed"}
	c.expect(t, in.start(t))
}

// A registry that does not take a schema stops the capture; once it does, everything comes.
func TestRegistryRefuses(t *testing.T) {
	pg := testenv.SharedPostgres(t)
	db := pg.CreateDatabase(t)
	sql(t, pg, db, "CREATE TABLE orders (id bigint PRIMARY KEY, note text)")
	_, url := newRegistry(t)
	client, err := registry.NewClient(registry.ClientConfig{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	s := on(t, pg.AdminURL(db))
	s.registry, s.more = fmt.Sprintf("{ url: %q }", url), "    snapshot: never\n"
	subject := s.name + ".public.orders-value"
	if _, err := client.Register(t.Context(), subject, `"string"`); err != nil {
		t.Fatal(err)
	}
	in := s.configure(t)
	p := in.start(t)
	p.ready()
	sql(t, pg, db, "INSERT INTO orders VALUES (1, 'kept')")
	c := badCase{code: 1, error: subject, hint: "tailrace capture resolve --capture " + s.name + " --accept-schema " + subject}
	c.expect(t, p)
	if err := client.SetLevel(t.Context(), subject, registry.None); err != nil {
		t.Fatal(err)
	}
	again := in.start(t)
	if got := rows(t, in.tail(t, s.name+".public.orders", 1)); got[0] != (row{"c", 1, "kept"}) {
		t.Errorf("got %v", got)
	}
	again.stop(syscall.SIGTERM, 0)
	dropSlot(t, pg, db, s.slot())
}

// A record that the broker does not take stops the capture; once it does, it comes.
func TestRecordTooLarge(t *testing.T) {
	pg := testenv.SharedPostgres(t)
	db := pg.CreateDatabase(t)
	sql(t, pg, db, "CREATE TABLE orders (id bigint PRIMARY KEY, note text)")
	s := on(t, pg.AdminURL(db))
	s.broker = kafkaBroker(t)
	s.more = "    topics: { partitions: 1, config: { max.message.bytes: 4000 } }\n    compression: none\n"
	in := s.configure(t)
	p := in.start(t)
	p.ready()
	topic := s.name + ".public.orders"
	sql(t, pg, db, "INSERT INTO orders VALUES (1, 'small')", "INSERT INTO orders VALUES (2, repeat('x', 100000))", "INSERT INTO orders VALUES (3, 'small')")
	c := badCase{code: 1, error: "larger than the broker takes", hint: "max.message.bytes"}
	c.expect(t, p)
	raise(t, topic)
	again := in.start(t)
	got := rows(t, in.tail(t, topic, 3))
	if len(got) != 3 || got[0].note != "small" || len(got[1].note) != 100000 || got[2].id != 3 {
		t.Errorf("got %d rows", len(got))
	}
	again.ready()
	again.stop(syscall.SIGTERM, 0)
	dropSlot(t, pg, db, s.slot())
}

// raise lets a topic take larger records.
func raise(t *testing.T, topic string) {
	t.Helper()
	admin := kafka.Client{Addr: kafka.TCP(testenv.SharedKafka(t))}
	_, err := admin.IncrementalAlterConfigs(t.Context(), &kafka.IncrementalAlterConfigsRequest{
		Resources: []kafka.IncrementalAlterConfigsRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: topic,
			Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: "max.message.bytes", Value: "1000000", ConfigOperation: kafka.ConfigOperationSet}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A database that does not answer is waited for: alive, not ready, and with its cause.
func TestDatabaseDown(t *testing.T) {
	in := on(t, "postgres://u:canary-4711@"+freeAddress(t)+"/db").configure(t)
	p := in.start(t)
	p.until("waiting", func() bool {
		_, body := p.get("/status")
		return strings.Contains(body, `"state": "waiting"`) && strings.Contains(body, "refused")
	})
	if code, _ := p.get("/livez"); code != http.StatusOK {
		t.Errorf("livez: %d", code)
	}
	if code, body := p.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "refused") {
		t.Errorf("readyz: %d %s", code, body)
	}
	_, status := p.get("/status")
	_, metrics := p.get("/metrics")
	if strings.Contains(status+metrics, "canary-4711") {
		t.Error("the password shows")
	}
	p.stop(syscall.SIGTERM, 0)
}

// Two captures: one stops for good, the other goes on, and the exit code tells in the end.
func TestOneOfTwoStops(t *testing.T) {
	pg := testenv.SharedPostgres(t)
	db := pg.CreateDatabase(t)
	sql(t, pg, db, "CREATE TABLE orders (id bigint PRIMARY KEY, note text)")
	s := on(t, pg.AdminURL(db))
	other := testenv.Unique("other")
	s.more = fmt.Sprintf("  - name: %s\n    postgres: { url: %q }\n", other, pg.URL("postgres", "wrong", db))
	in := s.configure(t)
	p := in.start(t)
	p.until("stopped with one and running with the other", func() bool {
		_, body := p.get("/status")
		return strings.Contains(body, `"state": "stopped"`) && strings.Contains(body, `"fatal": true`) && strings.Count(body, `"state": "running"`) == 2
	})
	sql(t, pg, db, "INSERT INTO orders VALUES (1, 'goes on')")
	in.tail(t, s.name+".public.orders", 1)
	if code, _ := p.get("/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("readyz: %d", code)
	}
	p.stop(syscall.SIGTERM, 3)
	dropSlot(t, pg, db, s.slot())
}
