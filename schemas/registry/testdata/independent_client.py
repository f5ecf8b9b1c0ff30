#!/usr/bin/env python3
"""An independent judge of what tailrace serves and writes.

It shares no code with tailrace: schemas come through Confluent's own client of the
registry, records through librdkafka, and Avro is decoded by fastavro.

  registry --registry URL [--normalize] [--scratch SUBJECT]
      Takes Confluent's client through the registry: stdin is JSON lines
      {"subject": s, "schema": text, "sample": value (optional)}. Each is registered,
      looked up, and fetched with a client that has nothing cached; the sample goes through
      Confluent's serializer and deserializer. Prints one JSON line for each, {"subject",
      "id", "version", "schema", "framed": base64 of the sample}. Then levels, refusals and
      deletion are tried on a subject of its own. Anything that is not as it must be ends it
      with exit code 1.

  decode --registry URL
      stdin is JSON lines {"topic", "partition", "offset", "key", "value"}, key and value
      base64 or null. Prints what it decodes, one JSON line for each.

  consume --registry URL --bootstrap HOST:PORT --topic T [--topic T2 …]
          [--count N] [--idle SECONDS] [--conf name=value …]
      Reads whole topics, committed records only, and prints them decoded in the order in
      which they come, until N records have come (exit code 0) or none has for so long
      (exit code 0 without --count, else 3).

A decoded line: {"topic", "partition", "offset", "timestamp", "key", "value",
"key_schema", "value_schema", "headers": [[name, base64 or null], …]}; the schemas are ids.
Bytes and fixed are written as "\\x" and hexadecimal digits, decimals as their digits, the
temporal logical types in ISO 8601, NaN and infinities as text. A record that cannot be
decoded to its last byte ends the program with exit code 1.

Errors go to stderr, one line. User and password for the registry are read from the
environment: REGISTRY_USER, REGISTRY_PASSWORD.
"""

import argparse
import base64
import datetime
import decimal
import io
import json
import math
import os
import sys
import time
import uuid

import fastavro
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext


class Wrong(Exception):
    """Something is not as it must be."""


def registry_client(url):
    conf = {"url": url, "max.retries": 2}
    if "REGISTRY_USER" in os.environ:
        conf["basic.auth.user.info"] = "%s:%s" % (os.environ["REGISTRY_USER"], os.environ.get("REGISTRY_PASSWORD", ""))
    return SchemaRegistryClient(conf)


def plain(v):
    """Turns a decoded value into what JSON can hold without loss."""
    if isinstance(v, dict):
        return {k: plain(w) for k, w in v.items()}
    if isinstance(v, (list, tuple)):
        return [plain(w) for w in v]
    if isinstance(v, (bytes, bytearray)):
        return "\\x" + bytes(v).hex()
    if isinstance(v, decimal.Decimal):
        return format(v, "f")
    if isinstance(v, (datetime.date, datetime.time)):
        return v.isoformat()
    if isinstance(v, uuid.UUID):
        return str(v)
    if isinstance(v, float) and not math.isfinite(v):
        return "NaN" if math.isnan(v) else "Infinity" if v > 0 else "-Infinity"
    return v


class Decoder:
    """Decodes framed Avro with the schemas of a registry."""

    def __init__(self, client):
        self.client = client
        self.schemas = {}

    def schema(self, schema_id):
        if schema_id not in self.schemas:
            text = self.client.get_schema(schema_id).schema_str
            self.schemas[schema_id] = fastavro.parse_schema(json.loads(text))
        return self.schemas[schema_id]

    def decode(self, framed):
        """Returns the value and its schema's id; (None, None) for null."""
        if framed is None:
            return None, None
        if len(framed) < 5 or framed[0] != 0:
            raise Wrong("no schema id in front: %s" % framed[:16].hex())
        schema_id = int.from_bytes(framed[1:5], "big")
        body = io.BytesIO(framed[5:])
        value = fastavro.schemaless_reader(body, self.schema(schema_id), None)
        rest = body.read()
        if rest:
            raise Wrong("%d bytes are left after the value" % len(rest))
        return plain(value), schema_id

    def line(self, place, key, value, headers):
        try:
            k, key_schema = self.decode(key)
            v, value_schema = self.decode(value)
        except SchemaRegistryError as e:
            raise Wrong("%s: fetch schema: %s" % (place, e)) from e
        except Exception as e:
            raise Wrong("%s: decode: %s: %s" % (place, type(e).__name__, e)) from e
        place = dict(place, key=k, value=v, key_schema=key_schema, value_schema=value_schema, headers=headers)
        return json.dumps(place, ensure_ascii=False, allow_nan=False)


def encode64(b):
    return None if b is None else base64.b64encode(b).decode("ascii")


def decode64(s):
    return None if s is None else base64.b64decode(s, validate=True)


def need(ok, what, *args):
    if not ok:
        raise Wrong(what % args)


def run_registry(args):
    for line in sys.stdin:
        want = json.loads(line)
        subject, schema = want["subject"], Schema(want["schema"], "AVRO")
        client = registry_client(args.registry)
        schema_id = client.register_schema(subject, schema, normalize_schemas=args.normalize)
        need(client.register_schema(subject, schema) == schema_id, "%s: registered again, its id differs", subject)

        fresh = registry_client(args.registry)
        found = fresh.lookup_schema(subject, schema)
        need((found.subject, found.schema_id) == (subject, schema_id), "%s: look-up finds id %s", subject, found.schema_id)
        kept = registry_client(args.registry).get_schema(schema_id).schema_str
        need(fastavro.parse_schema(json.loads(kept)) == fastavro.parse_schema(json.loads(want["schema"])),
             "%s: schema %d differs: %s", subject, schema_id, kept)
        need(subject in fresh.get_subjects(), "%s: not among the subjects", subject)
        need(found.version in fresh.get_versions(subject), "%s: version %s not among the versions", subject, found.version)
        one = fresh.get_version(subject, found.version)
        need(one.schema_id == schema_id, "%s: version %d has id %s", subject, found.version, one.schema_id)
        last = fresh.get_latest_version(subject)
        need(last.version >= found.version, "%s: latest version is %s", subject, last.version)
        need(fresh.test_compatibility(subject, schema), "%s: not compatible with itself", subject)
        line = {"subject": subject, "id": schema_id, "version": found.version, "schema": kept}
        if "sample" in want:
            line["framed"] = round_trip(fresh, subject, schema.schema_str, want["sample"])
        print(json.dumps(line), flush=True)
    run_admin(registry_client(args.registry), args.scratch)


def round_trip(client, subject, schema, sample):
    """Has Confluent's own serializer write a value, and its deserializer read it."""
    context = SerializationContext(subject.removesuffix("-value"), MessageField.VALUE)
    conf = {"auto.register.schemas": False}
    framed = AvroSerializer(client, schema, conf=conf)(sample, context)
    need(AvroDeserializer(client)(framed, context) == sample, "%s: value differs after a round trip", subject)
    value, _ = Decoder(client).decode(framed)
    need(value == plain(sample), "%s: decoded as %s", subject, value)
    return encode64(framed)


def run_admin(client, subject):
    """Level, refusals and deletion, on a subject of its own."""
    first, other = Schema('{"type":"record","name":"S","fields":[]}', "AVRO"), Schema('"int"', "AVRO")
    client.register_schema(subject, first)
    need(not client.test_compatibility(subject, other), "an incompatible schema is called compatible")
    need(refusal(client.register_schema, subject, other) == (409, 40901), "an incompatible schema is registered")
    need(refusal(client.register_schema, subject, Schema("{}", "AVRO")) == (422, 42201), "a schema that is none is registered")
    need(client.get_compatibility() == "BACKWARD", "global level is %s", client.get_compatibility())
    client.set_compatibility(subject, "NONE")
    need(client.get_compatibility(subject) == "NONE", "level is not what it was set to")
    client.register_schema(subject, other)
    need(client.get_versions(subject) == [1, 2], "versions are %s", client.get_versions(subject))
    need(refusal(client.get_schema, 2**31 - 1) == (404, 40403), "there is a schema with the highest id")
    need(client.delete_subject(subject) == [1, 2], "deletion does not tell the versions")
    need(client.delete_subject(subject, permanent=True) == [1, 2], "deletion for good does not tell the versions")
    need(refusal(registry_client_of(client).get_versions, subject) == (404, 40401), "a deleted subject is there")


def registry_client_of(client):
    """The same client, without what it has cached."""
    client.clear_caches()
    return client


def refusal(call, *args):
    """The status and code with which a call is refused; None if it is not."""
    try:
        call(*args)
    except SchemaRegistryError as e:
        return e.http_status_code, e.error_code
    return None


def run_decode(args):
    decoder = Decoder(registry_client(args.registry))
    for line in sys.stdin:
        r = json.loads(line)
        place = {"topic": r["topic"], "partition": r["partition"], "offset": r["offset"], "timestamp": r.get("timestamp")}
        print(decoder.line(place, decode64(r["key"]), decode64(r["value"]), []), flush=True)


def consumer(args):
    conf = {
        "bootstrap.servers": args.bootstrap,
        "group.id": "independent-%s" % uuid.uuid4(),
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "allow.auto.create.topics": False,
        "check.crcs": True,
        "enable.metrics.push": False,
        "reconnect.backoff.ms": 500,
        "log_level": 2,  # errors reach us as exceptions or error records
    }
    conf.update(pair.split("=", 1) for pair in args.conf)
    return Consumer(conf)


def partitions(c, topics):
    """All partitions of the topics, from their beginning."""
    found = []
    for topic in topics:
        meta = c.list_topics(topic, timeout=15).topics[topic]
        if meta.error is not None:
            raise Wrong("topic %s: %s" % (topic, meta.error))
        found += [TopicPartition(topic, p, OFFSET_BEGINNING) for p in sorted(meta.partitions)]
    return found


def run_consume(args):
    decoder = Decoder(registry_client(args.registry))
    c = consumer(args)
    try:
        c.assign(partitions(c, args.topic))
        n, last = 0, time.monotonic()
        while args.count is None or n < args.count:
            if time.monotonic() - last > args.idle:
                break
            m = c.poll(0.2)
            if m is None:
                continue
            if m.error() is not None:
                if m.error().fatal() or not m.error().retriable() and m.error().code() != KafkaError._TRANSPORT:
                    raise Wrong("consume: %s" % m.error())
                continue
            place = {"topic": m.topic(), "partition": m.partition(), "offset": m.offset(), "timestamp": m.timestamp()[1]}
            headers = [[name, encode64(v)] for name, v in m.headers() or []]
            print(decoder.line(place, m.key(), m.value(), headers), flush=True)
            n, last = n + 1, time.monotonic()
    finally:
        c.close()
    if args.count is not None and n < args.count:
        print("independent_client: %d records of %d in time" % (n, args.count), file=sys.stderr)
        return 3
    return 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = p.add_subparsers(required=True)

    def command(name, run):
        c = commands.add_parser(name)
        c.add_argument("--registry", required=True)
        c.set_defaults(run=run)
        return c

    c = command("registry", run_registry)
    c.add_argument("--normalize", action="store_true")
    c.add_argument("--scratch", default="independent-scratch-value")
    command("decode", run_decode)
    c = command("consume", run_consume)
    c.add_argument("--bootstrap", required=True)
    c.add_argument("--topic", action="append", required=True)
    c.add_argument("--count", type=int)
    c.add_argument("--idle", type=float, default=15)
    c.add_argument("--conf", action="append", default=[])
    args = p.parse_args()
    try:
        return args.run(args) or 0
    except Wrong as e:
        print("independent_client: %s" % e, file=sys.stderr)
    except SchemaRegistryError as e:
        print("independent_client: registry: %s" % e, file=sys.stderr)
    except KafkaException as e:
        print("independent_client: kafka: %s" % e, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
