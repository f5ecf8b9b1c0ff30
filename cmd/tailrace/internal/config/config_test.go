package config

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	yaml "github.com/goccy/go-yaml"
)

var rewrite = flag.Bool("rewrite", false, "write the expected output anew; read the difference")

// canary stands for a secret in the test files: it must never be shown.
const canary = "canary-4711"

// fakes is an environment and a file system with one secret each.
func fakes() references {
	env := map[string]string{"PASSWORD": canary, "PARTITIONS": "8"}
	return references{
		env: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		file: func(name string) ([]byte, error) {
			if name == "/secret" {
				return []byte(canary + "\n"), nil
			}
			return nil, fmt.Errorf("open %s: no such file or directory", name)
		},
	}
}

// golden compares got with testdata/name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

func read(t *testing.T, file string) (*Config, error) {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return parse(filepath.Base(file), src, Overrides{}, fakes())
}

func files(t *testing.T, pattern string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(list) < 3 {
		t.Fatalf("%d files match %s: %v", len(list), pattern, err)
	}
	return list
}

func TestGoodConfigs(t *testing.T) {
	for _, file := range files(t, "*.good.yml") {
		c, err := read(t, file)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		text, err := json.MarshalIndent(c, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, strings.TrimSuffix(filepath.Base(file), ".yml")+".json", string(text)+"\n")
	}
}

func TestBadConfigs(t *testing.T) {
	for _, file := range files(t, "*.bad.yml") {
		_, err := read(t, file)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s: got %v, want an *Error", file, err)
			continue
		}
		golden(t, strings.TrimSuffix(filepath.Base(file), ".yml")+".txt", e.Error()+"\n")
		for _, f := range e.Findings {
			if f.Code == "" || f.Message == "" {
				t.Errorf("%s: finding without code or message: %+v", file, f)
			}
		}
	}
}

// Three mistakes at once are three findings.
func TestAllMistakesAtOnce(t *testing.T) {
	_, err := read(t, "testdata/three.bad.yml")
	var e *Error
	if !errors.As(err, &e) || len(e.Findings) != 3 {
		t.Fatalf("got %v, want three findings", err)
	}
	if !e.Fatal() || e.Hint() == "" {
		t.Error("not fatal, or no hint")
	}
}

func TestRevealedValues(t *testing.T) {
	c, err := read(t, "testdata/full.good.yml")
	if err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		c.Registry.Password.Reveal():                canary,
		c.Broker.Kafka.SASL.Password.Reveal() + "!": canary + "!",
		c.Captures[0].Postgres.URL.Reveal():         "postgres://u:" + canary + "@h/db?application_name=${x}",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Whatever is done with a configuration or with the error of a bad one, no secret shows.
func TestSecretsStayHidden(t *testing.T) {
	for _, file := range append(files(t, "*.good.yml"), files(t, "*.bad.yml")...) {
		c, err := read(t, file)
		for _, text := range renderings(t, c, err) {
			if strings.Contains(text, canary) {
				t.Errorf("%s: a secret shows in\n%s", file, text)
			}
		}
	}
}

// renderings prints a configuration and an error in every way there is.
func renderings(t *testing.T, c *Config, failure error) []string {
	t.Helper()
	var out []string
	secrets := []Secret{c.Registry.Password}
	for _, cap := range c.Captures {
		if cap.Postgres != nil {
			secrets = append(secrets, cap.Postgres.URL)
			for _, columns := range cap.Postgres.Columns {
				for _, mask := range columns.Mask {
					secrets = append(secrets, mask.HMAC)
				}
			}
		}
	}
	for _, sink := range c.Sinks {
		if w := sink.Webhook; w != nil {
			secrets = append(append(secrets, w.URL), w.Secrets...)
			for _, header := range w.Headers {
				secrets = append(secrets, header)
			}
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, s := range secrets {
			out = append(out, fmt.Sprintf(verb, s), fmt.Sprintf(verb, &s), fmt.Sprintf(verb, []Secret{s}))
		}
		out = append(out, fmt.Sprintf(verb, c.Registry), fmt.Sprintf(verb, c.Sinks), fmt.Sprintf(verb, c.Captures), fmt.Sprintf(verb, failure))
	}
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	asYAML, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return append(out, string(asJSON), string(asYAML), logged(secrets))
}

func TestOverrides(t *testing.T) {
	src, err := os.ReadFile("testdata/minimal.good.yml")
	if err != nil {
		t.Fatal(err)
	}
	o := Overrides{Brokers: []string{"k:1"}, RegistryURL: "http://r", HTTPListen: "127.0.0.1:1", LogLevel: "warn", LogFormat: "json"}
	c, err := parse("f", src, o, fakes())
	if err != nil {
		t.Fatal(err)
	}
	if c.Broker.Embedded != nil || c.Broker.Kafka.Brokers[0] != "k:1" || c.Registry.URL != "http://r" || c.Registry.Serve != "" ||
		c.HTTP.Listen != "127.0.0.1:1" || c.Log.Level != "warn" || c.Log.Format != "json" {
		t.Errorf("got %+v", c)
	}
	if _, err = parse("f", src, Overrides{HTTPListen: "0.0.0.0:1"}, fakes()); err == nil || !strings.Contains(err.Error(), "reachable") {
		t.Errorf("an override is not validated: %v", err)
	}
}

func TestFromOverrides(t *testing.T) {
	c, err := FromOverrides(Overrides{Brokers: []string{"k:1"}, RegistryURL: "http://r"})
	if err != nil || c.Broker.Kafka.Brokers[0] != "k:1" {
		t.Errorf("got %+v, %v", c, err)
	}
	if _, err = FromOverrides(Overrides{}); err == nil || err.Error() != "flags: broker is missing; write broker.embedded or broker.kafka" {
		t.Errorf("got %v", err)
	}
}

func TestMissingFile(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "no.yaml"), Overrides{})
	if err == nil || !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), "read configuration: open ") {
		t.Errorf("got %v", err)
	}
}

// The schema knows every key, and each good file has only keys that it knows.
func TestSchema(t *testing.T) {
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "config.schema.json", string(text)+"\n")
	var s struct {
		Properties           map[string]any
		AdditionalProperties bool
		Required             []string
	}
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	if len(s.Properties) != 6 || s.AdditionalProperties || len(s.Required) != 1 {
		t.Errorf("got %+v", s)
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"slot", "slot", 0}, {"slto", "slot", 1}, {"", "ab", 2}, {"kitten", "sitting", 3}, {"ab", "", 2}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%s → %s: got %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

// No input makes the reader panic, or show a secret of the environment.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"*.good.yml", "*.bad.yml"} {
		list, _ := filepath.Glob(filepath.Join("testdata", pattern))
		for _, file := range list {
			src, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(src)
		}
	}
	refs := fakes()
	refs.env = func(string) (string, bool) { return "sesame-0815", true }
	f.Fuzz(func(t *testing.T, src []byte) {
		_, err := parse("f", src, Overrides{}, refs)
		if err != nil && strings.Contains(err.Error(), "sesame-0815") && !strings.Contains(string(src), "sesame-0815") {
			t.Errorf("a secret shows in %v", err)
		}
	})
}
