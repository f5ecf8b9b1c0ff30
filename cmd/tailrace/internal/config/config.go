package config

import (
	"time"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/capture/postgres"
	"github.com/tailrace/tailrace/sinks"
	"github.com/tailrace/tailrace/sinks/webhook"
)

// Config is the whole file. Load returns it with defaults filled in and validated.
type Config struct {
	Broker   Broker    `yaml:"broker" jsonschema:"required" jsonschema_description:"Where topics live: exactly one of embedded and kafka."`
	Registry Registry  `yaml:"registry" jsonschema_description:"Where schemas live: our own server (serve) or another one (url). Default: serve on 127.0.0.1:8081."`
	HTTP     HTTP      `yaml:"http" jsonschema_description:"Metrics, health and status of the process."`
	Log      Log       `yaml:"log" jsonschema_description:"The log on stderr."`
	Captures []Capture `yaml:"captures" jsonschema_description:"One entry for each database whose log is tailed. Without any, there must be sinks."`
	Sinks    []Sink    `yaml:"sinks" jsonschema_description:"One entry for each target that changes are applied to."`
}

// Broker says where topics live. Exactly one of its fields is set.
type Broker struct {
	Embedded *Embedded `yaml:"embedded" jsonschema_description:"The in-process broker for one machine."`
	Kafka    *Kafka    `yaml:"kafka" jsonschema_description:"An Apache Kafka cluster."`
}

// Embedded is the in-process broker.
type Embedded struct {
	Dir     string `yaml:"dir" jsonschema_description:"Data directory, created with mode 0700. One process at a time. Default: ./data."`
	Listen  string `yaml:"listen" jsonschema_description:"Loopback address for Kafka clients; port 0 takes a free one. Default: 127.0.0.1:9092."`
	MinFree Size   `yaml:"min_free" jsonschema_description:"Producing stops when the disk has less free space than this. Default: 256MiB."`
}

// Kafka is a cluster to connect to.
type Kafka struct {
	Brokers []string `yaml:"brokers" jsonschema:"required" jsonschema_description:"host:port of one or more brokers to start from."`
	TLS     *TLS     `yaml:"tls" jsonschema_description:"TLS to the brokers; {} takes the system's roots."`
	SASL    *SASL    `yaml:"sasl" jsonschema_description:"Authentication to the brokers."`
}

// TLS names the files of a TLS client. Empty: the system's roots, no client certificate.
type TLS struct {
	CA         string `yaml:"ca" jsonschema_description:"PEM file of the authorities to trust."`
	Cert       string `yaml:"cert" jsonschema_description:"PEM file of the client certificate; together with key."`
	Key        string `yaml:"key" jsonschema_description:"PEM file of the client certificate's key."`
	ServerName string `yaml:"server_name" jsonschema_description:"Name expected in the server's certificate, if not the host's."`
}

// SASL is how to authenticate to Kafka.
type SASL struct {
	Mechanism string `yaml:"mechanism" jsonschema:"required,enum=plain,enum=scram-sha-256,enum=scram-sha-512" jsonschema_description:"SASL mechanism."`
	User      string `yaml:"user" jsonschema:"required" jsonschema_description:"User name."`
	Password  Secret `yaml:"password" jsonschema:"required" jsonschema_description:"Password; better a reference than the text."`
}

// Registry is our own registry server, or the address of another. At most one of Serve
// and URL is set in a file.
type Registry struct {
	Serve    string `yaml:"serve" jsonschema_description:"Address on which our own registry answers: of loopback, or any with tls, user and password; port 0 takes a free one."`
	Topic    string `yaml:"topic" jsonschema_description:"Topic in which our own registry keeps the schemas, in Confluent's format. One process writes it. Default: _schemas."`
	URL      string `yaml:"url" jsonschema_description:"Address of a Confluent-compatible registry."`
	User     string `yaml:"user" jsonschema_description:"User name at url; or that our own registry asks for."`
	Password Secret `yaml:"password" jsonschema_description:"Password at url; or that our own registry asks for."`

	TLS   *ServerTLS `yaml:"tls" jsonschema_description:"Our own registry speaks TLS."`
	Hosts []string   `yaml:"hosts" jsonschema_description:"Names by which our own registry may be called, beside loopback's and that of serve."`
}

// ServerTLS names the files of a server's certificate. They are read again when they change.
type ServerTLS struct {
	Cert string `yaml:"cert" jsonschema:"required" jsonschema_description:"PEM file of the certificate, with those between it and its authority."`
	Key  string `yaml:"key" jsonschema:"required" jsonschema_description:"PEM file of the certificate's key."`
}

// HTTP is the process's own server.
type HTTP struct {
	Listen string     `yaml:"listen" jsonschema_description:"Address of /metrics, /livez, /readyz and /status: of loopback, or any with tls and token; port 0 takes a free one. Default: 127.0.0.1:9090."`
	TLS    *ServerTLS `yaml:"tls" jsonschema_description:"It speaks TLS."`
	Token  Secret     `yaml:"token" jsonschema_description:"Must come with each request, as Authorization: Bearer; /livez and /readyz say without it whether, not why. At least 16 characters."`
	Hosts  []string   `yaml:"hosts" jsonschema_description:"Names by which it may be called, beside loopback's and that of listen."`
}

// Log is how the process logs.
type Log struct {
	Level  string `yaml:"level" jsonschema:"enum=debug,enum=info,enum=warn,enum=error" jsonschema_description:"Lowest level shown. Default: info."`
	Format string `yaml:"format" jsonschema:"enum=auto,enum=text,enum=json" jsonschema_description:"auto: text on a terminal, else json. Default: auto."`
}

// Capture is one database's log and the topics it becomes.
type Capture struct {
	Name            string    `yaml:"name" jsonschema:"required" jsonschema_description:"Name of the capture; its state topic and its transactional id carry it."`
	Prefix          string    `yaml:"prefix" jsonschema_description:"First part of its topics' names. Default: the name."`
	Postgres        *Postgres `yaml:"postgres" jsonschema:"required" jsonschema_description:"The PostgreSQL server whose log is read."`
	Snapshot        string    `yaml:"snapshot" jsonschema:"enum=initial,enum=never,enum=when_needed" jsonschema_description:"initial: the rows that tables have are read too, at the first start and of tables that join later. never: only what changes from then on. when_needed: as initial, and anew, in a new epoch, when the log is lost. Default: initial."`
	Backfill        Backfill  `yaml:"backfill" jsonschema_description:"Bounds of reading the rows that tables have, beside the log."`
	Topics          Topics    `yaml:"topics" jsonschema_description:"How its topics are created."`
	Compression     string    `yaml:"compression" jsonschema:"enum=none,enum=gzip,enum=snappy,enum=lz4,enum=zstd" jsonschema_description:"Codec of record batches. Default: lz4."`
	Unrepresentable string    `yaml:"unrepresentable" jsonschema:"enum=stop,enum=null" jsonschema_description:"What becomes of a value that the type cannot hold (numeric NaN): stop the capture, or null in a nullable column. Default: stop."`
}

// Postgres is a PostgreSQL server, 14 to 18.
type Postgres struct {
	URL               Secret   `yaml:"url" jsonschema:"required" jsonschema_description:"Connection string, postgres://user:password@host:port/database."`
	Slot              string   `yaml:"slot" jsonschema_description:"Replication slot; created if missing. Default: tailrace_<name>."`
	Publication       string   `yaml:"publication" jsonschema_description:"Publication; created if missing. Default: the slot's name."`
	CreatePublication *bool    `yaml:"create_publication" jsonschema_description:"Create the publication and keep its tables as tables says; the user must own them. Otherwise the publication must exist. Default: true."`
	Tables            []string `yaml:"tables" jsonschema_description:"schema.table, with * for any characters. Default: every table."`

	Columns []Columns `yaml:"columns" jsonschema_description:"Which columns of which tables are left out or masked. All entries that match a table hold for it; of several masks of a column the first does."`
}

// Columns chooses and masks columns of the tables that a pattern names.
type Columns struct {
	Table   string          `yaml:"table" jsonschema:"required" jsonschema_description:"schema.table, with * for any characters. Without a * the table and the columns must exist."`
	Include []string        `yaml:"include" jsonschema_description:"The only columns that are written; the key's must be among them. Default: all."`
	Exclude []string        `yaml:"exclude" jsonschema_description:"Columns that are left out, of the schema too; none of the key."`
	Mask    map[string]Mask `yaml:"mask" jsonschema_description:"By column: what is written in place of its values."`
}

// Mask is what is written in place of a column's values: exactly one of these.
type Mask struct {
	Redact   bool    // the word redact in place of a mapping
	HMAC     Secret  `yaml:"hmac" jsonschema_description:"HMAC-SHA256 with this key of 16 bytes or more, as 64 hex digits: equal values stay equal. The only mask for a key."`
	Truncate int     `yaml:"truncate" jsonschema_description:"The first so many characters of a text."`
	Constant *string `yaml:"constant" jsonschema_description:"This value, as PostgreSQL writes one of the column's type."`
}

// word reads the mask that has no settings.
func (m *Mask) word(text string) bool {
	m.Redact = text == string(postgres.Redact)
	return m.Redact
}

// kinds lists what is given.
func (m *Mask) kinds() (kinds []postgres.MaskKind) {
	for kind, given := range map[postgres.MaskKind]bool{postgres.Redact: m.Redact, postgres.HMAC: m.HMAC.Set(),
		postgres.Truncate: m.Truncate != 0, postgres.Constant: m.Constant != nil} {
		if given {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// settings returns a mask as the source's package wants it.
func (m *Mask) settings() postgres.Mask {
	s := postgres.Mask{Length: m.Truncate, Key: m.HMAC.Reveal()}
	if kinds := m.kinds(); len(kinds) == 1 {
		s.Kind = kinds[0]
	}
	if m.Constant != nil {
		s.Text = *m.Constant
	}
	return s
}

// settings returns an entry as the source's package wants it.
func (c *Columns) settings() postgres.Columns {
	s := postgres.Columns{Table: c.Table, Include: c.Include, Exclude: c.Exclude, Mask: make(map[string]postgres.Mask)}
	for name, m := range c.Mask {
		s.Mask[name] = m.settings()
	}
	return s
}

// Backfill bounds what reading tables beside the log takes.
type Backfill struct {
	Readers int `yaml:"readers" jsonschema:"minimum=1,maximum=64" jsonschema_description:"Connections that read at the same time. Default: 2."`
	Rate    int `yaml:"rate" jsonschema:"minimum=1" jsonschema_description:"Rows a second that each backfill reads at most. Default: no limit."`
}

// Topics is how a capture's topics are created.
type Topics struct {
	Partitions  int32             `yaml:"partitions" jsonschema:"minimum=1" jsonschema_description:"Partitions of a new topic. Default: 4."`
	Replication int16             `yaml:"replication" jsonschema:"minimum=1" jsonschema_description:"Replicas of a new topic. Default: 1 on the embedded broker, the cluster's own default on Kafka."`
	Create      *bool             `yaml:"create" jsonschema_description:"Create missing topics; otherwise a missing one stops the capture. Default: true."`
	Config      map[string]string `yaml:"config" jsonschema_description:"Topic settings for new topics, as the broker names them."`
}

// Sink is one target that the changes of one capture are applied to.
type Sink struct {
	Name     string   `yaml:"name" jsonschema:"required" jsonschema_description:"Name of the sink; its positions in the target and its consumer group carry it."`
	From     string   `yaml:"from" jsonschema:"required" jsonschema_description:"Whose changes: a capture's name, or the prefix of topics that another process writes."`
	Postgres *Target  `yaml:"postgres" jsonschema_description:"The PostgreSQL database that changes are applied to."`
	Webhook  *Webhook `yaml:"webhook" jsonschema_description:"The HTTP address that changes are delivered to, as CloudEvents."`
	Mode     string   `yaml:"mode" jsonschema:"enum=transactions,enum=keys" jsonschema_description:"What is kept together: whole source transactions, or only the order of each key, with many processes sharing the work. Default: transactions; of a webhook keys, which is all that it can."`

	DeadLetters    string `yaml:"dead_letters" jsonschema:"enum=stop,enum=park" jsonschema_description:"Mode keys: what becomes of a change that the target refuses. stop: the sink stops. park: the change becomes a dead letter, later changes of its key wait behind it, and all else goes on. Default: stop."`
	MaxDeadLetters int    `yaml:"max_dead_letters" jsonschema:"minimum=1" jsonschema_description:"How many letters one process parks before the sink stops. Default: 10000."`
}

// Target is a PostgreSQL database that changes are applied to.
type Target struct {
	URL    Secret `yaml:"url" jsonschema:"required" jsonschema_description:"Connection string, postgres://user:password@host:port/database."`
	Schema string `yaml:"schema" jsonschema_description:"Schema that all tables go to. Default: schemas called as the source's."`
}

// Webhook is an HTTP address that changes are delivered to.
type Webhook struct {
	URL         Secret            `yaml:"url" jsonschema:"required" jsonschema_description:"Address. In its path and query {after.COLUMN}, {before.COLUMN}, {key.COLUMN}, {schema}, {table}, {op} stand for what a change has."`
	Headers     map[string]Secret `yaml:"headers" jsonschema_description:"Headers of each request; the same may stand in their values."`
	Secrets     []Secret          `yaml:"secrets" jsonschema_description:"Requests are signed with each of them (Standard Webhooks). With whsec_ before it a secret is base64."`
	Mode        string            `yaml:"mode" jsonschema:"enum=binary,enum=structured" jsonschema_description:"Whether CloudEvents' attributes are headers, or stand in the body with the data. Default: binary; with batch structured."`
	Concurrency int               `yaml:"concurrency" jsonschema:"minimum=1,maximum=256" jsonschema_description:"Requests at the same time; changes of one key always come one after the other. Default: 8."`
	Batch       int               `yaml:"batch" jsonschema:"minimum=1,maximum=1000" jsonschema_description:"How many events one request has at most; more than 1: as application/cloudevents-batch+json. Default: 1."`
	Timeout     Duration          `yaml:"timeout" jsonschema_description:"Of a request, its answer included. Default: 30s."`
	Allow       []string          `yaml:"allow" jsonschema_description:"Address ranges (10.1.2.0/24) that may be connected to although they are private, and without TLS."`
	CA          string            `yaml:"ca" jsonschema_description:"PEM file of the authorities to trust. Default: the system's."`
	Cert        string            `yaml:"cert" jsonschema_description:"PEM file of the client certificate; together with key."`
	Key         string            `yaml:"key" jsonschema_description:"PEM file of the client certificate's key."`
}

// The defaults of what a file leaves out.
const (
	DefaultDir            = "./data"
	DefaultBrokerListen   = "127.0.0.1:9092"
	DefaultRegistryListen = "127.0.0.1:8081"
	DefaultRegistryTopic  = "_schemas"
	DefaultHTTPListen     = "127.0.0.1:9090"
	DefaultMinFree        = Size(256 << 20)
	DefaultPartitions     = 4

	DefaultReaders = 2

	SnapshotInitial = string(capture.SnapshotInitial) // of Capture.Snapshot
)

// fill sets what the file left out.
func (c *Config) fill() {
	if e := c.Broker.Embedded; e != nil {
		e.Dir = or(e.Dir, DefaultDir)
		e.Listen = or(e.Listen, DefaultBrokerListen)
		e.MinFree = or(e.MinFree, DefaultMinFree)
	}
	if c.Registry.URL == "" {
		c.Registry.Serve = or(c.Registry.Serve, DefaultRegistryListen)
		c.Registry.Topic = or(c.Registry.Topic, DefaultRegistryTopic)
	}
	c.HTTP.Listen = or(c.HTTP.Listen, DefaultHTTPListen)
	c.Log.Level = or(c.Log.Level, "info")
	c.Log.Format = or(c.Log.Format, "auto")
	for i := range c.Captures {
		c.Captures[i].fill(c.Broker.Embedded != nil)
	}
	for i := range c.Sinks {
		c.Sinks[i].fill()
	}
}

// fill sets what the file left out of one capture.
func (c *Capture) fill(embedded bool) {
	c.Prefix = or(c.Prefix, c.Name)
	c.Compression = or(c.Compression, "lz4")
	c.Snapshot = or(c.Snapshot, SnapshotInitial)
	c.Backfill.Readers = or(c.Backfill.Readers, DefaultReaders)
	c.Unrepresentable = or(c.Unrepresentable, "stop")
	c.Topics.Partitions = or(c.Topics.Partitions, DefaultPartitions)
	if embedded {
		c.Topics.Replication = or(c.Topics.Replication, 1)
	}
	if c.Topics.Create == nil {
		c.Topics.Create = new(true)
	}
	if p := c.Postgres; p != nil {
		p.Slot = or(p.Slot, slotName(c.Name))
		p.Publication = or(p.Publication, p.Slot)
		if p.CreatePublication == nil {
			p.CreatePublication = new(true)
		}
	}
}

// fill sets what the file left out of one sink.
func (s *Sink) fill() {
	s.DeadLetters = or(s.DeadLetters, string(sinks.Stop))
	s.MaxDeadLetters = or(s.MaxDeadLetters, sinks.DefaultMaxDeadLetters)
	w := s.Webhook
	if w == nil {
		s.Mode = or(s.Mode, string(sinks.Transactions))
		return
	}
	s.Mode = or(s.Mode, string(sinks.Keys))
	w.Concurrency = or(w.Concurrency, webhook.DefaultConcurrency)
	w.Batch = or(w.Batch, 1)
	w.Timeout = or(w.Timeout, Duration(webhook.DefaultTimeout))
	if w.Batch == 1 {
		w.Mode = or(w.Mode, string(webhook.Binary))
	}
}

// slotName is the default slot of a capture: slots know no dash.
func slotName(capture string) string {
	b := []byte("tailrace_" + capture)
	for i, c := range b {
		if c == '-' {
			b[i] = '_'
		}
	}
	return string(b)
}

// or returns v, or def when v is its type's zero value.
func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// Source returns the settings of the capture's source, as its package wants them.
func (c *Capture) Source() postgres.Config {
	p := c.Postgres
	var columns []postgres.Columns
	for i := range p.Columns {
		columns = append(columns, p.Columns[i].settings())
	}
	return postgres.Config{
		URL: p.URL.Reveal(), Name: c.Name, Prefix: c.Prefix,
		Slot: p.Slot, Publication: p.Publication, CreatePublication: *p.CreatePublication,
		Tables: p.Tables, Columns: columns, Unrepresentable: c.Unrepresentable,
	}
}

// Settings returns the settings of the target, as its package wants them.
func (w *Webhook) Settings() webhook.Config {
	c := webhook.Config{
		URL: w.URL.Reveal(), Headers: make(map[string]string), Mode: webhook.Mode(w.Mode),
		Concurrency: w.Concurrency, Batch: w.Batch, Timeout: time.Duration(w.Timeout), Allow: w.Allow,
	}
	for name, value := range w.Headers {
		c.Headers[name] = value.Reveal()
	}
	for _, s := range w.Secrets {
		c.Secrets = append(c.Secrets, s.Reveal())
	}
	return c
}

// Prefix returns the topic prefix that a sink's from names: that of the capture of this
// name, else from itself.
func (c *Config) Prefix(from string) string {
	for i := range c.Captures {
		if c.Captures[i].Name == from {
			return c.Captures[i].Prefix
		}
	}
	return from
}
