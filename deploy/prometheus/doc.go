// Package prometheus holds alert rules for Prometheus, in tailrace.rules.yml, with their
// tests for promtool beside them; the dashboard for Grafana is in ../grafana. The tests here
// run promtool on both, and see that they ask for nothing that the product does not expose.
package prometheus
