package testenv

import (
	"context"
	"fmt"
	"os"
	"sync"
)

// KafkaVariable names the environment variable with the host:port of a Kafka node that
// all test binaries share; cmd/kafka sets it.
const KafkaVariable = "TAILRACE_TEST_KAFKA"

// Servers that all tests of one binary share; Main closes them. A binary without Main
// leaves it to the kernel (see Process), and their directories behind.
var shared struct {
	sync.Mutex
	kafka    *Kafka
	postgres *Postgres
}

// SharedKafka is the address of a Kafka node for all tests: the one that KafkaVariable
// names, else one that is started for this test binary. Tests tell themselves apart by
// names made with Unique, and neither stop nor reconfigure it.
func SharedKafka(tb TB) string {
	tb.Helper()
	if addr := os.Getenv(KafkaVariable); addr != "" {
		return addr
	}
	shared.Lock()
	defer shared.Unlock()
	if shared.kafka == nil {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		k, err := StartKafka(ctx, KafkaOptions{})
		if err != nil {
			tb.Fatalf("start the shared Kafka: %v", err)
		}
		shared.kafka = k
	}
	return shared.kafka.Addr()
}

// SharedPostgres is a PostgreSQL 15 for all tests of this binary. Each test makes a
// database of its own (CreateDatabase) and drops the slots that it made.
func SharedPostgres(tb TB) *Postgres {
	tb.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.postgres == nil {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		p, err := StartPostgres(ctx, PGOptions{})
		if err != nil {
			tb.Fatalf("start the shared PostgreSQL: %v", err)
		}
		shared.postgres = p
	}
	return shared.postgres
}

// Main is the body of a TestMain: it runs the tests, closes the shared servers and exits.
func Main(m interface{ Run() int }) {
	code := m.Run()
	if err := closeShared(); err != nil {
		fmt.Fprintln(os.Stderr, "close the shared servers:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func closeShared() error {
	shared.Lock()
	defer shared.Unlock()
	if shared.kafka != nil {
		if err := shared.kafka.Close(); err != nil {
			return err
		}
	}
	if shared.postgres != nil {
		return shared.postgres.Close()
	}
	return nil
}
