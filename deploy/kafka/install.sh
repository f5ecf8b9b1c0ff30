#!/usr/bin/env bash
# Puts what a node of Apache Kafka needs into the directory given (default: .deps/kafka in
# the project's root): the jars of pom.xml from Maven Central, the logging configuration,
# and a formatted, empty KRaft directory that new nodes are copied from.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
to=${1:-$here/../../.deps/kafka}
new=$to.new
rm -rf "$new"
mkdir -p "$new"
mvn -B -q -ntp -f "$here/pom.xml" dependency:copy-dependencies \
  -DincludeScope=runtime -DoutputDirectory="$new/libs"
cp "$here/log4j2.properties" "$new/"

# The ports do not matter: voters are named in each node's configuration, not in the
# formatted directory. The identity must be the one that testenv writes there.
cat >"$new/format.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:19093
listeners=PLAINTEXT://127.0.0.1:19092,CONTROLLER://127.0.0.1:19093
controller.listener.names=CONTROLLER
log.dirs=$new/formatted
PROPERTIES
java -Dlog4j2.configurationFile="file:$new/log4j2.properties" -cp "$new/libs/*" \
  kafka.tools.StorageTool format -t dGFpbHJhY2UtdGVzdHMtMQ -c "$new/format.properties" >"$new/format.log" 2>&1 ||
  { cat "$new/format.log" >&2; exit 1; }
rm "$new/format.properties"

rm -rf "$to"
mv "$new" "$to"
