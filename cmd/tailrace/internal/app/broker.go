package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"

	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	"github.com/tailrace/tailrace/stream"
	"github.com/tailrace/tailrace/stream/embedded"
)

// NewClient returns a client of the configured broker, which must run: it starts none and
// connects to nothing yet.
func NewClient(b config.Broker, log *slog.Logger) (*stream.Client, error) {
	c, err := ClientConfig(b)
	if err != nil {
		return nil, err
	}
	c.Log = log
	return stream.NewClient(c)
}

// ClientConfig returns the settings of a client of the configured broker. It reads the files
// that the configuration names.
func ClientConfig(b config.Broker) (stream.Config, error) {
	if e := b.Embedded; e != nil {
		if _, port, _ := net.SplitHostPort(e.Listen); port == "0" {
			return stream.Config{}, &settingError{"broker.embedded.listen has port 0, so its address is not known here", "`tailrace capture status` shows it: name it with --brokers", nil}
		}
		return stream.Config{Brokers: []string{e.Listen}}, nil
	}
	tlsConfig, err := clientTLS("broker.kafka.tls", b.Kafka.TLS)
	if err != nil {
		return stream.Config{}, err
	}
	mechanism, err := clientSASL(b.Kafka.SASL)
	if err != nil {
		return stream.Config{}, err
	}
	return stream.Config{Brokers: b.Kafka.Brokers, TLS: tlsConfig, SASL: mechanism}, nil
}

// clientTLS reads the files of t, which stands at a place of the configuration; nil: no TLS.
func clientTLS(at string, t *config.TLS) (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, &settingError{"read " + at + ".ca", "the file must exist and be readable for this process", err}
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, &settingError{at + ".ca holds no certificate", "it must be a PEM file", nil}
		}
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, &settingError{"read " + at + ".cert and key", "both must be PEM files that belong together", err}
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// clientSASL returns the mechanism of s; nil: none.
func clientSASL(s *config.SASL) (sasl.Mechanism, error) {
	if s == nil {
		return nil, nil
	}
	switch s.Mechanism {
	case "scram-sha-256":
		return scram.Mechanism(scram.SHA256, s.User, s.Password.Reveal())
	case "scram-sha-512":
		return scram.Mechanism(scram.SHA512, s.User, s.Password.Reveal())
	}
	return plain.Mechanism{Username: s.User, Password: s.Password.Reveal()}, nil
}

// settingError is a setting that turned out not to work when it was used.
type settingError struct {
	message, hint string
	err           error
}

// Error implements error.
func (e *settingError) Error() string {
	if e.err == nil {
		return e.message
	}
	return e.message + ": " + e.err.Error()
}

// Unwrap gives the cause.
func (e *settingError) Unwrap() error { return e.err }

// Fatal says that trying again will not help.
func (e *settingError) Fatal() bool { return true }

// Code asks for the exit code of a wrong configuration.
func (e *settingError) Code() int { return ExitUsage }

// Hint says what to do.
func (e *settingError) Hint() string { return e.hint }

// broker is where topics live: a client, and the embedded broker if it is ours.
type broker struct {
	*stream.Client
	embedded *embedded.Broker
	address  string
}

// openBroker starts the embedded broker, if it is configured, and a client.
func openBroker(ctx context.Context, b config.Broker, log *slog.Logger) (*broker, error) {
	if b.Embedded == nil {
		client, err := NewClient(b, log)
		if err != nil {
			return nil, err
		}
		return &broker{Client: client, address: strings.Join(b.Kafka.Brokers, ",")}, nil
	}
	server, err := embedded.Start(ctx, embedded.Config{
		Dir: b.Embedded.Dir, Listen: b.Embedded.Listen, MinFree: int64(b.Embedded.MinFree), Log: log,
	})
	if err != nil {
		return nil, fmt.Errorf("start embedded broker: %w", err)
	}
	client, err := stream.NewClient(stream.Config{Brokers: []string{server.Addr()}, Log: log})
	if err != nil {
		_ = server.Close()
		return nil, err
	}
	log.Info("listening", "what", "broker", "address", server.Addr())
	return &broker{Client: client, embedded: server, address: server.Addr()}, nil
}

// transactional says whether the broker can do crash-atomic transactions.
func (b *broker) transactional() bool { return b.embedded == nil }

// low says whether the embedded broker is below its free-space floor.
func (b *broker) low() bool { return b.embedded != nil && b.embedded.Low() }

// close ends the connections, then the embedded broker.
func (b *broker) close() error {
	b.Client.Close()
	if b.embedded == nil {
		return nil
	}
	if err := b.embedded.Close(); err != nil {
		return fmt.Errorf("stop embedded broker: %w", err)
	}
	return nil
}
