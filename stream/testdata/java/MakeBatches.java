import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.*;
import org.apache.kafka.common.record.internal.Record;

/**
 * Writes the *.batch files of this folder with Apache Kafka's own code, and
 * prints what it reads in files given as arguments. With kafka-clients and the
 * codecs' jars on the class path: java -cp 'libs/*' MakeBatches.java
 */
class MakeBatches {
    static final long BASE_OFFSET = 1000, BASE_TIME = 1_700_000_000_000L;

    public static void main(String[] args) throws Exception {
        if (args.length > 0) {
            for (String name : args) dump(Path.of(name));
            return;
        }
        for (CompressionType type : CompressionType.values()) {
            write(type.name + ".batch", TimestampType.CREATE_TIME, type, false);
        }
        write("logappendtime.batch", TimestampType.LOG_APPEND_TIME, CompressionType.NONE, false);
        write("transactional.batch", TimestampType.CREATE_TIME, CompressionType.LZ4, true);
        marker("commit.batch", ControlRecordType.COMMIT);
        marker("abort.batch", ControlRecordType.ABORT);
    }

    static void write(String name, TimestampType time, CompressionType type, boolean txn) throws Exception {
        ByteBuffer buffer = ByteBuffer.allocate(1 << 20);
        MemoryRecordsBuilder b = new MemoryRecordsBuilder(buffer, RecordBatch.MAGIC_VALUE_V2, Compression.of(type).build(),
            time, BASE_OFFSET, BASE_TIME + 99_999, 7L, (short) 3, 11, txn, false, 5, buffer.capacity());
        for (int i = 0; i < 400; i++) {
            b.append(timestamp(i), key(i), value(i), headers(i));
        }
        save(name, b.build().buffer());
    }

    static void marker(String name, ControlRecordType type) throws Exception {
        save(name, MemoryRecords.withEndTransactionMarker(BASE_OFFSET, BASE_TIME, 5, 7L, (short) 3,
            new EndTransactionMarker(type, 9)).buffer());
    }

    static void save(String name, ByteBuffer buffer) throws Exception {
        byte[] out = new byte[buffer.remaining()];
        buffer.duplicate().get(out);
        Files.write(Path.of(name), out);
    }

    // The Go test makes the same records.
    static long timestamp(int i) { return BASE_TIME + i * 3L - (i % 10 == 2 ? 500 : 0); }

    static ByteBuffer key(int i) { return i % 5 == 0 ? null : bytes(i % 5 == 1 ? "" : "key-" + i); }

    static ByteBuffer value(int i) {
        return i % 7 == 3 ? null : bytes(("value " + i * 7919L % 1000 + ";").repeat(i % 7 == 4 ? 0 : i % 41));
    }

    static Header[] headers(int i) {
        List<Header> list = new ArrayList<>();
        for (int k = 0; k < i % 3; k++) {
            byte[] value = i % 4 == 0 ? null : ("v" + i).getBytes(StandardCharsets.UTF_8);
            list.add(new RecordHeader("h" + k, value));
        }
        return list.toArray(new Header[0]);
    }

    static ByteBuffer bytes(String s) { return ByteBuffer.wrap(s.getBytes(StandardCharsets.UTF_8)); }

    static void dump(Path path) throws Exception {
        MemoryRecords records = MemoryRecords.readableRecords(ByteBuffer.wrap(Files.readAllBytes(path)));
        for (MutableRecordBatch batch : records.batches()) {
            batch.ensureValid();
            System.out.printf("%s %d-%d %s txn=%b producer=%d/%d/%d max=%d%n", path.getFileName(), batch.baseOffset(), batch.lastOffset(),
                batch.compressionType(), batch.isTransactional(), batch.producerId(), batch.producerEpoch(), batch.baseSequence(),
                batch.maxTimestamp());
            int i = 0, wrong = 0;
            for (Record r : batch) {
                r.ensureValid();
                boolean same = r.timestamp() == timestamp(i) && equal(r.key(), key(i)) && equal(r.value(), value(i))
                    && r.offset() == batch.baseOffset() + i && java.util.Arrays.equals(r.headers(), headers(i));
                if (!same) wrong++;
                i++;
            }
            System.out.printf("  %d records, %d wrong%n", i, wrong);
        }
    }

    static boolean equal(ByteBuffer a, ByteBuffer b) { return a == null ? b == null : a.equals(b); }
}
