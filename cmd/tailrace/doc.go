// Command tailrace tails the logs of databases and writes every change as Avro onto Kafka
// topics.
//
// Each command has its file here and is thin: configuration is in internal/config, what a
// running process is made of in internal/app, its HTTP server in internal/httpapi, records
// as people read them in internal/show.
//
// Standard output is data, standard error is progress. A setting from a flag wins over one
// from the environment, that over one from the file. Exit codes: 0; 1 failed while
// running; 2 usage or configuration; 3 environment; 4 a check failed; 130 interrupted.
package main
