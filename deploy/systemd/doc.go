// Package systemd holds the unit that runs tailrace as a service. The tests here ask systemd
// what it thinks of the unit, and see that unit, configuration and product fit together.
package systemd
