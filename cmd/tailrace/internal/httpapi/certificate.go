package httpapi

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Certificate is a server's, from two PEM files. It is read again when they have changed, so
// that it can be renewed while the server runs.
type Certificate struct {
	cert, key string
	log       *slog.Logger

	mu     sync.Mutex
	pair   *tls.Certificate
	stamps [2]time.Time
	looked time.Time
}

// lookEvery is how often the files are looked at, at most.
const lookEvery = 2 * time.Second

// LoadCertificate reads the files for the first time. log is told later if a changed one cannot
// be used: then the old one stays.
func LoadCertificate(cert, key string, log *slog.Logger) (*Certificate, error) {
	c := &Certificate{cert: cert, key: key, log: log}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c, c.load(time.Now())
}

func (c *Certificate) load(now time.Time) error {
	stamps, err := c.stat()
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return fmt.Errorf("read the certificate: %w", err)
	}
	c.pair, c.stamps, c.looked = &pair, stamps, now
	return nil
}

func (c *Certificate) stat() (stamps [2]time.Time, err error) {
	for i, file := range []string{c.cert, c.key} {
		info, err := os.Stat(file)
		if err != nil {
			return stamps, fmt.Errorf("read the certificate: %w", err)
		}
		stamps[i] = info.ModTime()
	}
	return stamps, nil
}

// get is tls.Config.GetCertificate.
func (c *Certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Sub(c.looked) < lookEvery {
		return c.pair, nil
	}
	c.looked = now
	stamps, err := c.stat()
	if err == nil && stamps == c.stamps {
		return c.pair, nil
	}
	if err == nil {
		err = c.load(now)
	}
	if err != nil {
		c.log.Warn("the changed certificate cannot be used: the one before it stays", "error", err)
		return c.pair, nil
	}
	c.log.Info("uses the changed certificate", "file", c.cert)
	return c.pair, nil
}

// server returns the settings of a server with the certificate.
func (c *Certificate) server() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get, NextProtos: []string{"http/1.1"}}
}

// PinTo returns the settings of a client of a server whose certificate file it can read: it talks
// to that certificate and to no other, whatever names are in it.
func PinTo(file string) (*tls.Config, error) {
	if _, err := leaf(file); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		// Chains and names say less than the file does: the check is VerifyConnection's.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			want, err := leaf(file)
			if err != nil {
				return err
			}
			if len(s.PeerCertificates) == 0 || !bytes.Equal(s.PeerCertificates[0].Raw, want) {
				return errors.New("the server has another certificate than the configuration")
			}
			return nil
		},
	}, nil
}

// leaf reads the first certificate of a PEM file.
func leaf(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	cert, err := firstCertificate(text)
	if err != nil {
		return nil, fmt.Errorf("read the certificate %s: %w", file, err)
	}
	return cert.Raw, nil
}

func firstCertificate(text []byte) (*x509.Certificate, error) {
	for rest := text; len(rest) > 0; {
		block, after := pem.Decode(rest)
		if block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			return x509.ParseCertificate(block.Bytes)
		}
		rest = after
	}
	return nil, errors.New("it holds none")
}
