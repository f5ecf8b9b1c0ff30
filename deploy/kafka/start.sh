#!/usr/bin/env bash
# Runs one node of Apache Kafka (KRaft, broker and controller in one) on loopback, in the
# foreground, until it is interrupted. What it stores is gone then.
#
#   deploy/kafka/start.sh [-port 9092]
#
# Installs the node first, if that was not done yet.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
[ -d .deps/kafka/libs ] || deploy/kafka/install.sh
exec go run ./deploy/testenv/cmd/kafka "$@"
