# make            lists the targets
# make demo       a pipeline at work, nothing else needed but Go
# make test       everything that a fresh clone needs, then every test

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
DEPS := .deps
PG15 := /usr/lib/postgresql/15/bin/postgres
ANALYZE := /usr/bin/systemd-analyze
TESTFLAGS ?=
DEMOFLAGS ?=
PACKAGES ?= ./...
# Packages whose tests also run with the race detector: those with goroutines of their own. The longest come first.
RACE ?= ./cmd/... ./capture/... ./stream/... ./schemas/registry/... ./sinks/...

.PHONY: help build demo test deps vet test-tools clean bench-kill-embedded bench-kill-kafka bench-kill-target bench-kill-backfill bench-sink bench-bigtx bench-snapshot

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-22s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## bin/tailrace
	CGO_ENABLED=0 go build -trimpath -o bin/tailrace ./cmd/tailrace

test: deps vet test-tools ## every test, on the embedded broker and on Apache Kafka
	bin/test/kafka -- bin/test/count \
	  "go test -json -timeout 20m $(TESTFLAGS) $(PACKAGES)" \
	  "go test -json -timeout 30m -race $(TESTFLAGS) $(RACE)"

demo: ## a pipeline at work, with a database of its own; Ctrl-C ends it (DEMOFLAGS="--for 20s")
	@ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null || test -n "$(findstring --postgres,$(DEMOFLAGS))" || $(MAKE) $(PG15)
	go run ./cmd/tailrace demo $(DEMOFLAGS)

vet: ## go vet and gofmt, of both builds
	@bad=$$(gofmt -l $$(go list -f '{{.Dir}}' ./...)); test -z "$$bad" || { echo "not formatted:"; echo "$$bad"; exit 1; }
	go vet ./...
	go vet -tags failpoint ./...

test-tools:
	go build -o bin/test/ ./deploy/testenv/cmd/...

deps: $(PG15) $(ANALYZE) $(DEPS)/postgres.stamp $(DEPS)/kafka.stamp $(DEPS)/venv.stamp $(DEPS)/prometheus.stamp ## what the tests run against, into .deps

$(PG15):
	@test "$$(id -u)" = 0 || { echo "PostgreSQL 15 is missing: install Debian's package postgresql-15" >&2; exit 1; }
	apt-get update -q
	DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends postgresql-15

$(ANALYZE): # it needs no systemd that runs
	@test "$$(id -u)" = 0 || { echo "systemd-analyze is missing: install Debian's package systemd" >&2; exit 1; }
	apt-get update -q
	DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends systemd

$(DEPS)/postgres.stamp: deploy/testenv/postgres/package-lock.json deploy/testenv/postgres/install.sh
	@mkdir -p $(DEPS)
	deploy/testenv/postgres/install.sh $(CURDIR)/$(DEPS)/postgres
	@touch $@

$(DEPS)/kafka.stamp: deploy/kafka/pom.xml deploy/kafka/install.sh deploy/kafka/log4j2.properties
	@mkdir -p $(DEPS)
	deploy/kafka/install.sh $(CURDIR)/$(DEPS)/kafka
	@touch $@

$(DEPS)/venv.stamp: deploy/testenv/requirements.txt
	@mkdir -p $(DEPS)
	rm -rf $(DEPS)/venv
	python3 -m venv $(DEPS)/venv
	$(DEPS)/venv/bin/pip install --quiet --disable-pip-version-check -r deploy/testenv/requirements.txt
	@touch $@

$(DEPS)/prometheus.stamp: deploy/prometheus/install.sh
	@mkdir -p $(DEPS)
	deploy/prometheus/install.sh $(CURDIR)/$(DEPS)/prometheus
	@touch $@

bench-kill-embedded: deps ## 100 kills on the embedded broker, judged from outside
	go run ./deploy/bench/kill -broker embedded -kills 100

bench-kill-kafka: deps ## 100 kills on Apache Kafka, judged from outside
	go run ./deploy/bench/kill -broker kafka -kills 100

bench-kill-target: deps ## the same with the sink, on both brokers: the target equal, no half transaction seen
	go run ./deploy/bench/kill -target postgres -broker embedded -kills 100
	go run ./deploy/bench/kill -target postgres -broker kafka -kills 100

bench-kill-backfill: deps ## 50 kills while rows are read beside the log, on both brokers
	go run ./deploy/bench/kill -backfill -broker embedded -kills 50
	go run ./deploy/bench/kill -backfill -broker kafka -kills 50

bench-sink: deps ## 1 M changes from topic to PostgreSQL, beside COPY and merge
	go run ./deploy/bench/sink

bench-bigtx: deps ## a 2 GB transaction and the memory that it takes
	go run ./deploy/bench/bigtx

bench-snapshot: deps ## 2 M rows from a table into its topic, beside COPY
	go run ./deploy/bench/snapshot

clean: ## bin and .deps
	rm -rf bin $(DEPS)
