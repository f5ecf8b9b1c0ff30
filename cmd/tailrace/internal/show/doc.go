// Package show turns records of topics into what a person reads: JSON with fields in
// their schema's order, decimals as numbers in text, unions without their wrapping. What
// is not the Avro that its schema says is shown as an error, never as text.
package show
