package webhook

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tailrace/tailrace/sinks"
)

func TestGuard(t *testing.T) {
	for address, why := range map[string]string{
		"93.184.216.34": "", "8.8.8.8": "", "172.15.255.255": "", "172.32.0.0": "", "100.63.255.255": "", "100.128.0.0": "", "223.255.255.255": "",
		"2606:2800:220:1:248:1893:25c8:1946": "", "2a00:1450:4001:81b::200e": "", "::ffff:8.8.8.8": "",

		"127.0.0.1": "loopback", "127.255.255.254": "loopback", "::1": "loopback", "::ffff:127.0.0.1": "loopback",
		"10.0.0.1": "private", "172.16.0.1": "private", "172.31.255.255": "private", "192.168.1.1": "private", "::ffff:192.168.1.1": "private", "fc00::1": "private", "fdff::1": "private", "fec0::1": "private",
		"169.254.169.254": "link-local", "fe80::1": "link-local", "fe80::1%eth0": "link-local", "::ffff:169.254.169.254": "link-local", "fd00:ec2::254": "private",
		"100.64.0.1": "CGNAT", "100.100.100.200": "CGNAT", "100.127.255.255": "CGNAT", "168.63.129.16": "metadata",
		"224.0.0.1": "multicast", "239.255.255.255": "multicast", "ff02::1": "multicast", "255.255.255.255": "reserved", "240.0.0.1": "reserved",
		"0.0.0.0": "unspecified", "0.1.2.3": "unspecified", "::": "unspecified",
		"192.0.0.192": "reserved", "192.0.2.1": "reserved", "198.18.0.1": "reserved", "198.51.100.1": "reserved", "203.0.113.1": "reserved", "192.88.99.1": "reserved",
		"::127.0.0.1": "another form", "::8.8.8.8": "another form", "64:ff9b::7f00:1": "NAT64", "64:ff9b::808:808": "NAT64", "64:ff9b:1::a00:1": "NAT64", "2002:7f00:1::": "6to4",
		"2001::1": "tunnels", "2001:db8::1": "reserved", "3fff::1": "reserved", "4000::1": "reserved", "100::1": "reserved", "5f00::1": "reserved",
	} {
		g := guard{}
		err := g.control("tcp6", netip.AddrPortFrom(netip.MustParseAddr(address), 443).String())
		var b *blocked
		switch {
		case why == "" && err != nil:
			t.Errorf("%s: %v", address, err)
		case why != "" && (!errors.As(err, &b) || !strings.Contains(err.Error(), why) || !sinks.IsFatal(err) || !strings.Contains(sinks.HintOf(err), "allow")):
			t.Errorf("%s: %v, want that it is %s", address, err, why)
		}
		addr := netip.MustParseAddr(address).Unmap().WithZone("")
		g.allow = []netip.Prefix{netip.PrefixFrom(addr, addr.BitLen())}
		if g.plain = true; g.check(netip.MustParseAddr(address)) != nil {
			t.Errorf("%s is refused although it is allowed", address)
		}
	}
	g := guard{plain: true}
	if err := g.check(netip.MustParseAddr("8.8.8.8")); err == nil || !strings.Contains(err.Error(), "https") {
		t.Errorf("without TLS: %v", err)
	}
	for _, c := range [][2]string{{"unix", "/tmp/x"}, {"tcp4", "example.com:80"}, {"udp4", "8.8.8.8:53"}} {
		if g.control(c[0], c[1]) == nil {
			t.Errorf("%v passes", c)
		}
	}
}

// The ranges allow what is in them, and not more.
func TestGuardAllow(t *testing.T) {
	g := guard{allow: []netip.Prefix{netip.MustParsePrefix("10.1.2.0/24")}}
	for address, ok := range map[string]bool{"10.1.2.3": true, "::ffff:10.1.2.3": true, "10.1.3.3": false, "127.0.0.1": false, "64:ff9b::a01:203": false, "8.8.8.8": true} {
		if err := g.check(netip.MustParseAddr(address)); (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// answerA is a DNS server that gives every name one address; it returns a resolver that asks
// it.
func answerA(t *testing.T, address string) *net.Resolver {
	t.Helper()
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		query := make([]byte, 512)
		for {
			n, from, err := server.ReadFrom(query)
			if err != nil {
				return // closed
			}
			if _, err := server.WriteTo(dnsAnswer(query[:n], netip.MustParseAddr(address)), from); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { server.Close(); <-done })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp4", server.LocalAddr().String())
	}}
}

// dnsAnswer answers a query (RFC 1035, 4.1): its header with the counts changed, its
// question, and, if that is for an A, one record that points to the question's name.
func dnsAnswer(query []byte, addr netip.Addr) []byte {
	end := 12
	for query[end] != 0 {
		end += 1 + int(query[end])
	}
	end += 5 // the root, type and class
	isA := binary.BigEndian.Uint16(query[end-4:]) == 1
	out := append([]byte(nil), query[:end]...)
	out[2], out[3] = 0x81, 0x80 // an answer; recursion desired and available
	binary.BigEndian.PutUint16(out[6:], 0)
	binary.BigEndian.PutUint16(out[8:], 0)
	binary.BigEndian.PutUint16(out[10:], 0)
	if isA {
		binary.BigEndian.PutUint16(out[6:], 1)
		out = append(out, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4)
		out = append(out, addr.AsSlice()...)
	}
	return out
}

// A name is judged by the address that it has when the connection is made.
func TestGuardLooksAtResolvedAddress(t *testing.T) {
	asked := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.Host }))
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		allow string
		ok    bool
	}{{"10.0.0.0/8", false}, {"127.0.0.1/32", true}} {
		cfg := Config{URL: "http://innocent.example:" + port + "/", Allow: []string{c.allow}, Concurrency: 1, Timeout: time.Minute}
		to, problems := cfg.compile()
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		d := to.guard.dialer()
		d.Resolver = answerA(t, "127.0.0.1")
		client := newClient(&cfg, to, d)
		err := client.attempt(t.Context(), &request{url: to.base})
		client.close()
		switch {
		case c.ok && err != nil:
			t.Errorf("allowed: %v", err)
		case !c.ok && (!sinks.IsFatal(err) || !strings.Contains(err.Error(), "127.0.0.1 is loopback")):
			t.Errorf("not allowed: %v", err)
		}
	}
	if len(asked) != 1 {
		t.Errorf("the server was asked %d times, want once", len(asked))
	}
}

// Proxies that the environment names are not asked: they would connect to where we do not.
func TestNoProxy(t *testing.T) {
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"} {
		t.Setenv(name, "http://127.0.0.1:1")
	}
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	cfg := Config{URL: server.URL, Allow: []string{"127.0.0.1/32"}, Concurrency: 1, Timeout: time.Minute}
	to, problems := cfg.compile()
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	client := newClient(&cfg, to, to.guard.dialer())
	defer client.close()
	var no *refusal
	if err := client.attempt(t.Context(), &request{url: to.base}); !errors.As(err, &no) || no.status != 404 {
		t.Error(err)
	}
	if client.http.(*http.Transport).Proxy != nil {
		t.Error("the transport has a proxy")
	}
}
