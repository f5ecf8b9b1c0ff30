package postgres

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// session is a connection of the kind replication=database.
type session struct {
	*pgconn.PgConn
	socket        *socket
	reader        io.Reader // what pgproto3 reads from; nothing is read ahead
	database      string
	senderTimeout time.Duration // after which the server gives us up; 0: never
}

// sessionSettings fix the text forms that the encoders read, and keep the server's own
// habits out: a publication is not made to wait for a synchronous standby that is absent.
var sessionSettings = map[string]string{
	"client_encoding":    "UTF8",
	"DateStyle":          "ISO",
	"TimeZone":           "UTC",
	"IntervalStyle":      "postgres",
	"extra_float_digits": "3",
	"bytea_output":       "hex",
	"search_path":        "pg_catalog",
	"statement_timeout":  "0",
	"synchronous_commit": "local",

	"idle_in_transaction_session_timeout": "0", // an exported snapshot is such a transaction
}

// connectSQL opens an ordinary connection.
func (c *Config) connectSQL(ctx context.Context) (*pgx.Conn, error) {
	return c.connectWith(ctx, map[string]string{"statement_timeout": "60s"})
}

// sqlReadBuffer is how much an ordinary connection reads at once: a COPY sends much, and
// pgproto3 by itself reads 8 KiB at a time.
const sqlReadBuffer = 64 << 10

// connectWith opens an ordinary connection with settings over those of all sessions.
func (c *Config) connectWith(ctx context.Context, settings map[string]string) (*pgx.Conn, error) {
	conf, err := c.parseURL()
	if err != nil {
		return nil, err
	}
	c.setParams(&conf.Config)
	maps.Copy(conf.RuntimeParams, settings)
	conf.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		return pgproto3.NewFrontend(bufio.NewReaderSize(r, sqlReadBuffer), w)
	}
	conn, err := pgx.ConnectConfig(ctx, conf)
	if err != nil {
		return nil, connectError("connect to PostgreSQL", conf.User, conf.Database, err)
	}
	return conn, nil
}

// connectReplication opens a connection that takes replication commands.
func (c *Config) connectReplication(ctx context.Context) (*session, error) {
	parsed, err := c.parseURL()
	if err != nil {
		return nil, err
	}
	conf := parsed.Config
	c.setParams(&conf)
	conf.RuntimeParams["replication"] = "database"
	s := &session{database: conf.Database}
	dial := conf.DialFunc
	conf.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return newSocket(conn), nil
	}
	conf.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		s.reader = r
		return pgproto3.NewFrontend(&messageReader{r: r}, w)
	}
	if s.PgConn, err = pgconn.ConnectConfig(ctx, &conf); err != nil {
		return nil, connectError("connect to PostgreSQL for replication", conf.User, conf.Database, err)
	}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, s.terminate())
	}
	return s, nil
}

func (s *session) prepare(ctx context.Context) error {
	conn := s.Conn()
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	var ok bool
	if s.socket, ok = conn.(*socket); !ok {
		return fmt.Errorf("connect to PostgreSQL for replication: unexpected connection %T", conn)
	}
	value, err := s.setting(ctx, "wal_sender_timeout")
	if err != nil {
		return err
	}
	ms, err := strconv.Atoi(value)
	s.senderTimeout = time.Duration(ms) * time.Millisecond
	return err
}

// setting reads a setting of the session, in its base unit.
func (s *session) setting(ctx context.Context, name string) (string, error) {
	results, err := s.Exec(ctx, "SELECT setting FROM pg_catalog.pg_settings WHERE name = "+quoteLiteral(name)).ReadAll()
	if err != nil {
		return "", fmt.Errorf("read setting %s: %w", name, err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return "", fmt.Errorf("read setting %s: the server does not know it", name)
	}
	return string(results[0].Rows[0][0]), nil
}

// terminate ends the session and closes the connection.
func (s *session) terminate() error {
	conn := s.Conn()
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write([]byte{'X', 0, 0, 0, 4}) // the server may be gone: closing is what counts
	if err := conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close the connection: %w", err)
	}
	return nil
}

func (c *Config) setParams(conf *pgconn.Config) {
	for name, value := range sessionSettings {
		conf.RuntimeParams[name] = value
	}
	name := "tailrace"
	if c.Name != "" {
		name += " " + c.Name
	}
	conf.RuntimeParams["application_name"] = name
}

// user is who the connection URL connects as.
func (c *Config) user() string {
	conf, err := c.parseURL()
	if err != nil {
		return ""
	}
	return conf.User
}

// messageReader lets pgproto3 read no further than to the end of the message that it
// reads, so that what follows CopyBothResponse is still in the connection.
type messageReader struct {
	r    io.Reader
	head [frameHead]byte
	have int // bytes of head read
	left int // bytes of the message's content to read
}

// Read reads from one message, or its head.
func (m *messageReader) Read(p []byte) (int, error) {
	if m.left > 0 {
		n, err := m.r.Read(p[:min(len(p), m.left)])
		m.left -= n
		return n, err
	}
	n, err := m.r.Read(p[:min(len(p), frameHead-m.have)])
	m.have += copy(m.head[m.have:], p[:n])
	if m.have == frameHead {
		m.have, m.left = 0, max(0, int(int32(binary.BigEndian.Uint32(m.head[1:])))-4)
	}
	return n, err
}
