package app

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	"github.com/tailrace/tailrace/deploy/testenv"
	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/stream"
)

// onBrokers runs a test on the embedded broker and on Apache Kafka.
func onBrokers(t *testing.T, test func(t *testing.T, b *broker)) {
	for name, cfg := range map[string]func(t *testing.T) config.Broker{
		"embedded": func(t *testing.T) config.Broker {
			return config.Broker{Embedded: &config.Embedded{Dir: t.TempDir(), Listen: "127.0.0.1:0", MinFree: 1}}
		},
		"kafka": func(t *testing.T) config.Broker {
			return config.Broker{Kafka: &config.Kafka{Brokers: []string{testenv.SharedKafka(t)}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := openBroker(t.Context(), cfg(t), quiet)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := b.close(); err != nil {
					t.Error(err)
				}
			})
			test(t, b)
		})
	}
}

// openLog opens the log as a process does that is about to write it.
func openLog(t *testing.T, b *broker, topic string) *schemaLog {
	t.Helper()
	l, err := openSchemaLog(t.Context(), b, topic, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Fence(t.Context()); err != nil {
		t.Fatal(err)
	}
	return l
}

// contents returns the entries from an offset on as key=value, without NOOPs.
func contents(t *testing.T, l *schemaLog, from int64) (out []string, next int64) {
	t.Helper()
	next, err := l.Read(t.Context(), from, func(_ int64, e registry.Entry) error {
		if string(e.Key) != string(noopKey) {
			out = append(out, string(e.Key)+"="+string(e.Value))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out, next
}

func entry(key, value string) registry.Entry {
	e := registry.Entry{Key: []byte(key)}
	if value != "" {
		e.Value = []byte(value)
	}
	return e
}

func TestSchemaLog(t *testing.T) {
	onBrokers(t, func(t *testing.T, b *broker) {
		topic := testenv.Unique("schemas")
		l := openLog(t, b, topic)
		_, from := contents(t, l, 0)
		if err := l.Append(t.Context(), []registry.Entry{entry("a", "1"), entry("b", "2")}); err != nil {
			t.Fatal(err)
		}
		got, next := contents(t, l, from)
		if !slices.Equal(got, []string{"a=1", "b=2"}) {
			t.Errorf("got %v", got)
		}
		if err := l.Append(t.Context(), []registry.Entry{entry("a", "")}); err != nil {
			t.Fatal(err)
		}
		if got, end := contents(t, l, next); !slices.Equal(got, []string{"a="}) || end <= next {
			t.Errorf("got %v, %d after %d", got, end, next)
		}
		if got, _ := contents(t, openLog(t, b, topic), from); !slices.Equal(got, []string{"a=1", "b=2", "a="}) {
			t.Errorf("opened again: got %v", got)
		}
		stop := errors.New("enough")
		if _, err := l.Read(t.Context(), from, func(int64, registry.Entry) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("got %v", err)
		}
	})
}

// The outcome of a write is unclear, and nobody else has come: the log stays ours.
func TestSchemaLogAfterUnclearOutcome(t *testing.T) {
	onBrokers(t, func(t *testing.T, b *broker) {
		topic := testenv.Unique("schemas")
		l := openLog(t, b, topic)
		_, from := contents(t, l, 0)
		l.producer = nil
		if err := l.Append(t.Context(), []registry.Entry{entry("a", "1")}); err != nil {
			t.Fatal(err)
		}
		l.producer = nil
		if got, _ := contents(t, l, from); !slices.Equal(got, []string{"a=1"}) {
			t.Errorf("got %v", got)
		}
	})
}

// Who has been fenced writes nothing more, whether its producer finds out or it has to
// look because an outcome was unclear; and looking takes nothing from the new owner.
func TestSchemaLogFencing(t *testing.T) {
	for _, unclear := range []bool{false, true} {
		t.Run(fmt.Sprintf("unclear=%v", unclear), func(t *testing.T) {
			b, err := openBroker(t.Context(), config.Broker{Kafka: &config.Kafka{Brokers: []string{testenv.SharedKafka(t)}}}, quiet)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = b.close() }()
			topic := testenv.Unique("schemas")
			old := openLog(t, b, topic)
			_, from := contents(t, old, 0)
			owner := openLog(t, b, topic)
			if unclear {
				old.producer = nil
			}
			for range 2 {
				if err := old.Append(t.Context(), []registry.Entry{entry("old", "1")}); !errors.Is(err, registry.ErrFenced) {
					t.Errorf("got %v", err)
				}
			}
			if err := owner.Append(t.Context(), []registry.Entry{entry("new", "1")}); err != nil {
				t.Errorf("the owner has lost its log: %v", err)
			}
			for name, l := range map[string]*schemaLog{"old": old, "owner": owner} {
				if got, _ := contents(t, l, from); !slices.Equal(got, []string{"new=1"}) {
					t.Errorf("%s reads %v", name, got)
				}
			}
		})
	}
}

// A registry over the topic keeps its schemas and their ids over a restart, and one that
// was fenced says so.
func TestRegistryOverTopic(t *testing.T) {
	onBrokers(t, func(t *testing.T, b *broker) {
		subject, topic := "s", testenv.Unique("schemas")
		start := func() (*registry.Server, *registry.Client) {
			l, err := openSchemaLog(t.Context(), b, topic, quiet)
			if err != nil {
				t.Fatal(err)
			}
			s, err := registry.NewServer(t.Context(), l, registry.ServerConfig{Logger: quiet})
			if err != nil {
				t.Fatal(err)
			}
			web := httptest.NewServer(s)
			t.Cleanup(web.Close)
			c, err := registry.NewClient(registry.ClientConfig{URL: web.URL})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			return s, c
		}
		first, client := start()
		id, err := client.Register(t.Context(), subject, `"string"`)
		if err != nil {
			t.Fatal(err)
		}
		_, again := start()
		if got, _, err := again.Lookup(t.Context(), subject, `"string"`); err != nil || got != id {
			t.Errorf("got %d, %v, want %d", got, err, id)
		}
		if b.embedded != nil {
			return // one process there: nobody to fence
		}
		if _, err := client.Register(t.Context(), subject+"2", `"string"`); err == nil {
			t.Error("a fenced registry has written")
		}
		<-first.Done()
		if !errors.Is(first.Err(), registry.ErrFenced) || !Final(first.Err()) {
			t.Errorf("got %v", first.Err())
		}
	})
}

// A topic that cannot be a registry's is refused.
func TestSchemaLogPartitions(t *testing.T) {
	b, err := openBroker(t.Context(), config.Broker{Embedded: &config.Embedded{Dir: t.TempDir(), Listen: "127.0.0.1:0", MinFree: 1}}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.close() }()
	const topic = "_schemas"
	if _, err := b.EnsureTopic(t.Context(), stream.TopicSpec{Name: topic, Partitions: 2, Replication: 1, Create: true}); err != nil {
		t.Fatal(err)
	}
	_, err = openSchemaLog(t.Context(), b, topic, quiet)
	if err == nil || !strings.Contains(err.Error(), "has 2 partitions") || !Final(err) {
		t.Errorf("got %v", err)
	}
}

// Until its log has been read, the registry's address answers that it is not ready.
func TestRegistryNotReady(t *testing.T) {
	w := httptest.NewRecorder()
	new(schemaRegistry).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/subjects", nil))
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "error_code") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}
