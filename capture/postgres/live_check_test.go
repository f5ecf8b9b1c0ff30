package postgres

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/deploy/testenv"
)

const canary = "s3cret-canary"

// wantRefused inspects and prepares with cfg, and checks the error: its exit code, its
// words, its hint, and that it holds no password.
func wantRefused(t *testing.T, cfg Config, code int, message, hint string) {
	t.Helper()
	src, err := New(cfg)
	if err == nil {
		defer src.Close()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		var info capture.LogInfo
		if info, err = src.Inspect(ctx); err == nil {
			err = info.Lost
		}
		if err == nil && !info.Ready {
			_, _, err = src.Prepare(ctx, false)
		}
		if err == nil {
			err = src.Run(ctx, info.Lowest, newRecorder(t))
		}
	}
	wantStop(t, err, message, hint)
	if got := capture.CodeOf(err); got != code {
		t.Errorf("exit code %d, want %d: %v", got, code, err)
	}
	if text := err.Error() + capture.HintOf(err); strings.Contains(text, canary) || strings.Contains(text, testenv.Password) {
		t.Errorf("the password is in %q", text)
	}
}

func TestLivePreconditions(t *testing.T) {
	server := testenv.SharedPostgres(t)
	l := newLive(t, server, "CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE keyless (id int)", "CREATE VIEW v AS SELECT 1",
		"CREATE TABLE nothing (id int PRIMARY KEY)", "ALTER TABLE nothing REPLICA IDENTITY NOTHING")
	user := strings.ReplaceAll(testenv.Unique("u"), "-", "_")
	plain, replicator := user+"_plain", user+"_repl"
	l.exec("CREATE ROLE "+plain+" LOGIN PASSWORD '"+canary+"'", "CREATE ROLE "+replicator+" LOGIN REPLICATION PASSWORD '"+canary+"'")
	t.Cleanup(func() { l.exec("DROP ROLE "+plain, "DROP ROLE "+replicator) })
	const env, conf = capture.CodeEnvironment, capture.CodeConfig
	for name, test := range map[string]struct {
		change        func(*Config)
		code          int
		message, hint string
	}{
		"wrong password": {func(c *Config) { c.URL = server.URL("postgres", canary, l.db) }, env, "password authentication failed", "password of user"},
		"no database":    {func(c *Config) { c.URL = server.AdminURL("nowhere") }, env, `"nowhere" does not exist`, "must exist"},
		"no privilege":   {func(c *Config) { c.URL = server.URL(plain, canary, l.db) }, env, "", "ALTER ROLE \"" + plain + "\" REPLICATION"},
		"no right to publish": {func(c *Config) { c.URL, c.Tables = server.URL(replicator, canary, l.db), []string{"public.t"} }, env,
			"permission denied", `CREATE PUBLICATION "` + l.cfg.Publication + `" FOR TABLE "public"."t";`},
		"no publication":    {func(c *Config) { c.CreatePublication, c.Tables = false, []string{"public.t"} }, env, "does not exist", "CREATE PUBLICATION"},
		"table missing":     {func(c *Config) { c.Tables = []string{"public.t", "public.absent", "public.v"} }, conf, "no table public.absent, public.v", "case-sensitive"},
		"no table matches":  {func(c *Config) { c.Tables = []string{"else.*"} }, conf, "no table matches else.*", "patterns"},
		"table without key": {func(c *Config) { c.Tables = []string{"public.keyless"} }, conf, "would fail on public.keyless", "REPLICA IDENTITY FULL"},
		"identity nothing":  {func(c *Config) { c.Tables = []string{"public.not*"} }, conf, "would fail on public.nothing", "REPLICA IDENTITY FULL"},
		"pattern":           {func(c *Config) { c.Tables = []string{"t"} }, conf, "has no schema", "schema.table"},
		"url":               {func(c *Config) { c.URL = "postgres://u:" + canary + "%zz@h/db" }, conf, "cannot be read", "%XX"},
		"empty url":         {func(c *Config) { c.URL = "" }, conf, "is empty", "postgres://"},
		"slot name":         {func(c *Config) { c.Slot = "A b" }, conf, "slot name", "lower-case"},
		"publication name":  {func(c *Config) { c.Publication = "" }, conf, "publication name", "1 to 63"},
		"three at once": {func(c *Config) { c.Slot, c.Unrepresentable, c.StatusInterval = "-", "guess", -1 }, conf,
			"unknown choice", "stop or null"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := l.cfg
			test.change(&cfg)
			wantRefused(t, cfg, test.code, test.message, test.hint)
		})
	}
}

// What the owner was told to run is enough.
func TestLiveLeastPrivilege(t *testing.T) {
	server := testenv.SharedPostgres(t)
	l := newLive(t, server, "CREATE TABLE t (id int PRIMARY KEY)", "REVOKE ALL ON t FROM PUBLIC")
	user := strings.ReplaceAll(testenv.Unique("u"), "-", "_")
	l.exec("CREATE ROLE "+user+" LOGIN REPLICATION PASSWORD 'pw'", "CREATE PUBLICATION "+l.cfg.Publication+" FOR TABLE t")
	t.Cleanup(func() { l.exec("DROP ROLE " + user) })
	l.cfg.URL, l.cfg.CreatePublication, l.cfg.Tables = server.URL(user, "pw", l.db), false, []string{"public.t"}
	l.start()
	l.exec("INSERT INTO t VALUES (1)")
	l.until("c public.t")
	l.stop()
	l.exec("CREATE TABLE more (id int PRIMARY KEY)", "ALTER PUBLICATION "+l.cfg.Publication+" ADD TABLE more")
	wantRefused(t, l.cfg, capture.CodeEnvironment, `also holds public.more`, `DROP TABLE "public"."more"`)
	l.cfg.Tables = []string{"public.*"}
	l.exec("CREATE TABLE third (id int PRIMARY KEY)")
	wantRefused(t, l.cfg, capture.CodeEnvironment, `does not hold public.third`, `ADD TABLE "public"."third"`)
}

func TestLiveServerSettings(t *testing.T) {
	server := testenv.NewPostgres(t, testenv.PGOptions{Settings: map[string]string{"wal_level": "replica"}})
	cfg := Config{URL: server.AdminURL("postgres"), Slot: "s", Publication: "p", CreatePublication: true}
	wantRefused(t, cfg, capture.CodeEnvironment, "wal_level is", "wal_level = logical")

	server = testenv.NewPostgres(t, testenv.PGOptions{Settings: map[string]string{"max_replication_slots": "1"}})
	l := newLive(t, server, "CREATE TABLE t (id int PRIMARY KEY)", "SELECT pg_create_physical_replication_slot('other')")
	wantRefused(t, l.cfg, capture.CodeEnvironment, "all replication slots are in use", "max_replication_slots")
}

func TestLiveForeignSlots(t *testing.T) {
	server := testenv.NewPostgres(t, testenv.PGOptions{Settings: map[string]string{"max_slot_wal_keep_size": "1MB", "max_wal_size": "32MB"}})
	l := newLive(t, server, "CREATE TABLE t (id int PRIMARY KEY, v text)", "SELECT pg_create_physical_replication_slot('physical')",
		"SELECT pg_create_logical_replication_slot('decoding', 'test_decoding')", "SELECT pg_create_logical_replication_slot('lost', 'pgoutput')")
	if err := server.Exec(t.Context(), "postgres", "SELECT pg_create_logical_replication_slot('elsewhere', 'pgoutput')"); err != nil {
		t.Fatal(err)
	}
	refused := func(slot string, code int, message string) {
		cfg := l.cfg
		cfg.Slot = slot
		wantRefused(t, cfg, code, message, "slot")
	}
	refused("physical", capture.CodeConfig, "physical replication")
	refused("decoding", capture.CodeConfig, "test_decoding")
	refused("elsewhere", capture.CodeConfig, `of database "postgres"`)
	for range 4 {
		l.exec("INSERT INTO t SELECT i, 'x' FROM generate_series(1, 1000) i", "TRUNCATE t", "SELECT pg_switch_wal()", "CHECKPOINT")
	}
	refused("lost", capture.CodeEnvironment, "invalidated")
}

func TestUnreachableIsNotFatal(t *testing.T) {
	port, err := testenv.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	src, err := New(Config{URL: "postgres://u:" + canary + "@127.0.0.1:" + strconv.Itoa(port) + "/db?sslmode=disable", Slot: "s", Publication: "p"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = src.Inspect(t.Context()); err == nil || capture.IsFatal(err) || strings.Contains(err.Error(), canary) {
		t.Errorf("got %v", err)
	}
	if err := src.Close(); err != nil {
		t.Error(err)
	}
}

// An absent synchronous standby holds back commits, not what is read of them.
func TestLiveSynchronousStandbyAbsent(t *testing.T) {
	server := testenv.NewPostgres(t, testenv.PGOptions{})
	l := newLive(t, server, "CREATE TABLE t (id int PRIMARY KEY)")
	if err := server.Set(t.Context(), "synchronous_standby_names", "absent"); err != nil {
		t.Fatal(err)
	}
	if err := server.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.exec("SET synchronous_commit = local")
	l.start()
	l.exec("INSERT INTO t VALUES (1)")
	l.until("c public.t")
}

// The same over TLS: what is read after the handover is below pgproto3's reader.
func TestLiveTLS(t *testing.T) {
	dir := t.TempDir()
	certificate(t, dir)
	server := testenv.NewPostgres(t, testenv.PGOptions{})
	for _, name := range []string{"server.crt", "server.key"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		quoted := "'" + strings.ReplaceAll(string(b), "'", "''") + "'"
		path := filepath.Join(server.Dir, "data", name)
		if err := server.Exec(t.Context(), "postgres",
			"COPY (SELECT unnest(string_to_array("+quoted+", E'\\n'))) TO PROGRAM 'umask 077; cat > "+path+"'"); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.Set(t.Context(), "ssl", "on"); err != nil {
		t.Fatal(err)
	}
	if err := server.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	l := newLive(t, server, "CREATE TABLE t (id int PRIMARY KEY, v text)")
	l.cfg.URL = strings.ReplaceAll(l.cfg.URL, "sslmode=disable", "sslmode=verify-full&sslrootcert="+filepath.Join(dir, "server.crt"))
	if err := l.eventually(func() (bool, error) { // the reload takes a moment
		conn, err := l.cfg.connectSQL(t.Context())
		if err == nil {
			err = conn.Close(t.Context())
		}
		return err == nil, err
	}); err != nil {
		t.Fatal(err)
	}
	l.start()
	l.exec("INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 20000) i")
	l.until("commit")
	if _, ok := l.source.conn.Conn().(*tls.Conn); !ok {
		t.Errorf("the connection is a %T", l.source.conn.Conn())
	}
	l.wait("idle", func() bool { return l.rec.idles > 1 })
	l.exec("INSERT INTO t VALUES (0, '')")
	l.until("c public.t", `"id":0`)
	if n := len(l.changes()); n != 20001 {
		t.Errorf("%d changes", n)
	}
}

// certificate writes a certificate for 127.0.0.1 that signs itself, and its key.
func certificate(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"server.crt": {Type: "CERTIFICATE", Bytes: der}, "server.key": {Type: "EC PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
