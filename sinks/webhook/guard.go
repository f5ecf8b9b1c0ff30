package webhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/tailrace/tailrace/sinks"
)

// guard decides to which addresses may be connected. It is asked when a name is resolved
// and the connection about to be made, so that no name can lead elsewhere.
type guard struct {
	allow []netip.Prefix
	plain bool // without TLS, only to addresses that are allowed explicitly
}

// blocked is an address that the guard does not let pass.
type blocked struct {
	addr netip.Addr
	why  string
}

// Error says which address.
func (e *blocked) Error() string { return fmt.Sprintf("address %s is %s", e.addr, e.why) }

// Fatal: whoever configured the sink has to say that it is meant.
func (e *blocked) Fatal() bool { return true }

// Hint says how.
func (e *blocked) Hint() string {
	return fmt.Sprintf("if it is meant, add it to the sink's webhook.allow: [%q]", netip.PrefixFrom(e.addr, e.addr.BitLen()))
}

// Code asks for the exit code of a wrong environment: what a name stands for is not ours.
func (e *blocked) Code() int { return sinks.CodeEnvironment }

// connectTimeout bounds a connection's coming to be, resolving the name included.
const connectTimeout = 10 * time.Second

// dialer returns a dialer that connects only where the guard allows it.
func (g *guard) dialer() *net.Dialer {
	return &net.Dialer{
		Timeout: connectTimeout,
		ControlContext: func(_ context.Context, network, address string, _ syscall.RawConn) error {
			return g.control(network, address)
		},
	}
}

// control is asked with the resolved address, before anything is sent to it.
func (g *guard) control(network, address string) error {
	if network != "tcp4" && network != "tcp6" {
		return errors.New("connect: not TCP")
	}
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return errors.New("connect: the resolver gave no address")
	}
	return g.check(at.Addr())
}

// check returns nil, or an error that says what the address is.
func (g *guard) check(addr netip.Addr) error {
	addr = addr.Unmap().WithZone("")
	for _, p := range g.allow {
		if p.Contains(addr) {
			return nil
		}
	}
	if why := special(addr); why != "" {
		return &blocked{addr, why}
	}
	if g.plain {
		return &blocked{addr, "only reached with https"}
	}
	return nil
}

// ranges4 are the IPv4 addresses that are nobody's on the Internet, or whose hosts trust who
// reaches them. Source: IANA's special-purpose registry, and the clouds' own manuals for
// the two addresses of metadata services outside of it.
var ranges4 = prefixes(
	"0.0.0.0/8", "unspecified",
	"10.0.0.0/8", "private",
	"100.64.0.0/10", "shared by carriers (CGNAT)",
	"127.0.0.0/8", "loopback",
	"168.63.129.16/32", "a cloud's metadata service",
	"169.254.0.0/16", "link-local, as clouds' metadata services are",
	"172.16.0.0/12", "private",
	"192.0.0.0/24", "reserved",
	"192.0.2.0/24", "reserved",
	"192.88.99.0/24", "reserved",
	"192.168.0.0/16", "private",
	"198.18.0.0/15", "reserved",
	"198.51.100.0/24", "reserved",
	"203.0.113.0/24", "reserved",
	"224.0.0.0/4", "multicast",
	"240.0.0.0/4", "reserved",
)

// ranges6 are those of IPv6; beyond them only 2000::/3 is on the Internet. What stands for an
// IPv4 address is not looked into: a gateway may take it anywhere.
var ranges6 = prefixes(
	"::/128", "unspecified",
	"::1/128", "loopback",
	"::/96", "an IPv4 address in another form",
	"64:ff9b::/96", "an IPv4 address in another form (NAT64)",
	"64:ff9b:1::/48", "an IPv4 address in another form (NAT64)",
	"2001::/23", "reserved, as tunnels are",
	"2001:db8::/32", "reserved",
	"2002::/16", "an IPv4 address in another form (6to4)",
	"3fff::/20", "reserved",
	"fc00::/7", "private",
	"fe80::/10", "link-local",
	"fec0::/10", "private",
	"ff00::/8", "multicast",
)

type namedPrefix struct {
	netip.Prefix
	name string
}

func prefixes(pairs ...string) []namedPrefix {
	var all []namedPrefix
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, namedPrefix{netip.MustParsePrefix(pairs[i]), pairs[i+1]})
	}
	return all
}

var internet6 = netip.MustParsePrefix("2000::/3")

// special says what an address is that is not an ordinary one on the Internet; else "".
func special(addr netip.Addr) string {
	ranges := ranges4
	if addr.Is6() {
		ranges = ranges6
	}
	for i := range ranges {
		if ranges[i].Contains(addr) {
			return ranges[i].name
		}
	}
	if addr.Is6() && !internet6.Contains(addr) {
		return "reserved"
	}
	return ""
}
