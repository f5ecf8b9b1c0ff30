// Package topics reads what a capture wrote, the way a stranger would: with franz-go
// against the broker, with goavro and the registry's HTTP API for the content, and with a
// parser of its own for the header `tailrace`. Nothing of the product's code is used.
package topics
