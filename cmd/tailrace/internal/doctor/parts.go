package doctor

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tailrace/tailrace/capture"
	capturepg "github.com/tailrace/tailrace/capture/postgres"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/app"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/httpapi"
	"github.com/tailrace/tailrace/sinks"
	sinkpg "github.com/tailrace/tailrace/sinks/postgres"
)

// configuration is what can be said without connecting to anything.
func (c *checkup) configuration(context.Context) []Finding {
	out := []Finding{ok(CodeConfig, "", "the configuration is valid")}
	out = append(out, c.plaintext()...)
	for i := range c.cfg.Sinks {
		if f, found := c.loop(i); found {
			out = append(out, f)
		}
	}
	return out
}

// plaintext warns of what crosses a network in clear.
func (c *checkup) plaintext() (out []Finding) {
	if k := c.cfg.Broker.Kafka; k != nil && k.TLS == nil {
		for _, b := range k.Brokers {
			if !local(b) {
				out = append(out, Finding{CodeBrokerPlaintext, Warning, "broker.kafka.tls", "the connection to " + b + " is without TLS: rows, and with SASL plain the password, can be read on the way",
					"set broker.kafka.tls; {} takes the system's authorities", nil, false})
				break
			}
		}
	}
	if r := c.cfg.Registry; r.Password.Set() && strings.HasPrefix(r.URL, "http://") && !local(strings.TrimPrefix(r.URL, "http://")) {
		out = append(out, Finding{CodeRegistryPlaintext, Warning, "registry.url", "the registry's password goes over the network in clear", "use https", nil, false})
	}
	return out
}

// local says whether an address, with port or path, is on this machine.
func local(address string) bool {
	host, _, _ := strings.Cut(address, "/")
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// loop finds a sink that would write what its own capture reads.
func (c *checkup) loop(i int) (Finding, bool) {
	s := &c.cfg.Sinks[i]
	if s.Postgres == nil {
		return Finding{}, false
	}
	for j := range c.cfg.Captures {
		from := &c.cfg.Captures[j]
		if from.Prefix != c.cfg.Prefix(s.From) || !sameDatabase(s.Postgres.URL.Reveal(), from.Postgres.URL.Reveal()) || !c.covers(from, s.Postgres.Schema) {
			continue
		}
		return Finding{CodeLoop, Error, fmt.Sprintf("sinks[%d].postgres", i), fmt.Sprintf("the sink writes to the database of capture %q, into tables that it reads: each change would come back", from.Name),
			"name another database, or a schema that captures[].postgres.tables does not name", nil, false}, true
	}
	return Finding{}, false
}

// covers says whether a capture reads tables of the schema that a sink writes to.
func (c *checkup) covers(from *config.Capture, schema string) bool {
	if schema == "" || len(from.Postgres.Tables) == 0 {
		return true
	}
	for _, t := range from.Postgres.Tables {
		if of, _, _ := strings.Cut(t, "."); of == schema || strings.Contains(of, "*") {
			return true
		}
	}
	return false
}

// sameDatabase says whether two URLs name one database. One that cannot be read names none.
func sameDatabase(a, b string) bool {
	x, err := pgconn.ParseConfig(a)
	y, err2 := pgconn.ParseConfig(b)
	return err == nil && err2 == nil && x.Host == y.Host && x.Port == y.Port && x.Database == y.Database
}

// capture tries what one capture needs of its database.
func (c *checkup) capture(ctx context.Context, i int) []Finding {
	one, path := &c.cfg.Captures[i], fmt.Sprintf("captures[%d].postgres", i)
	source := one.Source()
	checked, err := capturepg.Check(ctx, source, capture.CheckOptions{
		Snapshot: one.Snapshot != string(capture.SnapshotNever), Deep: c.opts.Depth == Deep, Offline: c.opts.Depth == Offline,
	})
	if err != nil {
		return []Finding{failed(CodeConfig, path, err)}
	}
	c.mu.Lock()
	c.tables[one.Prefix] = checked.Tables
	c.mu.Unlock()
	out := make([]Finding, len(checked.Findings))
	for n, f := range checked.Findings {
		out[n] = Finding{f.Code, string(f.Severity), below(path, f.Setting), f.Found, f.Mend, f.SQL, f.Restart}
	}
	return out
}

// sink tries what one sink needs of its target.
func (c *checkup) sink(ctx context.Context, i int) []Finding {
	one, path := &c.cfg.Sinks[i], fmt.Sprintf("sinks[%d].postgres", i)
	if one.Webhook != nil {
		return webhook(one.Webhook, fmt.Sprintf("sinks[%d].webhook", i))
	}
	o := sinks.CheckOptions{Offline: c.opts.Depth == Offline}
	for _, t := range c.tables[c.cfg.Prefix(one.From)] {
		o.Tables = append(o.Tables, sinks.TableRef(t))
	}
	settings := sinkpg.Config{Name: one.Name, URL: one.Postgres.URL.Reveal(), Schema: one.Postgres.Schema, Log: slog.New(slog.DiscardHandler)}
	findings, err := sinkpg.Check(ctx, settings, o)
	if err != nil {
		return []Finding{failed(CodeConfig, path, err)}
	}
	out := make([]Finding, len(findings))
	for n, f := range findings {
		out[n] = Finding{f.Code, string(f.Severity), below(path, f.Setting), f.Found, f.Mend, f.SQL, false}
	}
	return out
}

// webhook reads the files that a webhook needs. Its address is not asked: whatever were sent
// there would be taken for a change.
func webhook(w *config.Webhook, path string) []Finding {
	if _, err := app.WebhookTLS(w); err != nil {
		return []Finding{failed(CodeWebhookSettings, path, err)}
	}
	return []Finding{ok(CodeWebhookSettings, path, "the settings can be used; the address is not asked, since what is sent there counts")}
}

// below is the path of a setting in a section.
func below(path, setting string) string {
	if setting == "" {
		return path
	}
	return path + "." + setting
}

// failed is an error as a finding.
func failed(code, path string, err error) Finding {
	return Finding{Code: code, Severity: Error, Path: path, Found: err.Error(), Mend: app.Hint(err)}
}

// http looks whether the process's own address is free, unless a tailrace answers there.
func (c *checkup) http(ctx context.Context) []Finding {
	const path = "http.listen"
	switch {
	case c.opts.Depth == Offline:
		return nil
	case c.opts.Status != nil:
		return []Finding{ok(CodeHTTPListen, path, "tailrace %s answers at %s, since %s", c.opts.Status.Version, c.cfg.HTTP.Listen, c.opts.Status.Started.UTC().Format("2006-01-02 15:04:05"))}
	}
	access, err := app.HTTPAccess(&c.cfg.HTTP, slog.New(slog.DiscardHandler))
	if err != nil {
		return []Finding{failed(CodeHTTPListen, path, err)}
	}
	return []Finding{listen(ctx, CodeHTTPListen, path, "http", access)}
}

// listen opens an address and closes it again.
func listen(ctx context.Context, code, path, what string, access *httpapi.Access) Finding {
	l, err := httpapi.Listen(ctx, what, access)
	if err == nil {
		err = l.Close()
	}
	if err != nil {
		return failed(code, path, err)
	}
	return ok(code, path, "%s is free", access.Address)
}
