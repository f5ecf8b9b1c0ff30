// Package container holds the file that a container image is built with. The test here does
// what an engine would do with it: it builds from the files that .dockerignore lets
// through, lays out the root, and runs the product in it as the user that the file names.
package container
