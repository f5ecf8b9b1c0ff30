// Package config reads tailrace's one configuration file.
//
// The file is parsed to a YAML tree and the tree is read into Config by a strict walk
// that goes on after a mistake, so that all of them are reported at once, each with its
// place, an excerpt of the line and, where one is near, what was probably meant.
// References (`${env:X}`, `${file:/path}`) are replaced in string scalars of the parsed
// tree, never in text, so that a value cannot add YAML of its own. Flags and environment
// variables are laid over the result (Overrides), then it is validated as a whole.
package config
