package config

import (
	"slices"
	"testing"
)

// Each difference has a path, no value, and the order of captures is none.
func TestDifferences(t *testing.T) {
	env := func(name string) (string, bool) { return "postgres://u:" + name + "@h/d", true }
	parse := func(text string) *Config {
		c, err := Parse("a file", []byte(text), env)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	const was = `
broker: { embedded: { dir: /d } }
captures:
  - { name: shop, postgres: { url: "${env:A}", tables: ["public.*"] } }
  - { name: erp, postgres: { url: "${env:A}" }, topics: { config: { a: b } } }
  - { name: old, postgres: { url: "${env:A}" } }
`
	const is = `
broker: { kafka: { brokers: ["h:1"] } }
log: { level: debug }
captures:
  - { name: erp, postgres: { url: "${env:B}", create_publication: false }, topics: { config: { a: c } } }
  - { name: new, postgres: { url: "${env:A}" } }
  - { name: shop, snapshot: never, postgres: { url: "${env:A}", tables: ["public.*", "app.*"] } }
`
	if d := Differences(parse(was), parse(was)); len(d) > 0 {
		t.Errorf("of nothing: %v", d)
	}
	want := []string{"broker.embedded", "broker.kafka", "captures.erp.postgres.create_publication", "captures.erp.postgres.url",
		"captures.erp.topics.config", "captures.erp.topics.replication", "captures.new", "captures.old", "captures.shop.postgres.tables",
		"captures.shop.snapshot", "captures.shop.topics.replication", "log.level"} // the embedded broker has its own default of replication
	if got := Differences(parse(was), parse(is)); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}
