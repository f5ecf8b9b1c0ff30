package testenv

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// Servers that are stopped and started again keep their port. So ports are taken from
// below the range (32768 and up) from which the kernel picks the local port of outgoing
// connections: nobody takes one by accident while its server is down.
const (
	lowestPort  = 20000
	highestPort = 31999
)

// bindTries is how often a start is tried again when another process took the port
// between the moment it was found free and the moment the server bound it.
const bindTries = 8

// FreePort is a loopback port that nobody listens on as it returns.
func FreePort() (int, error) {
	for range 1000 {
		port := lowestPort + rand.IntN(highestPort-lowestPort+1)
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		return port, l.Close()
	}
	return 0, errors.New("find a free port: 1000 tries found none")
}
