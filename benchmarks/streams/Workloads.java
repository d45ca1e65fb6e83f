import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.sun.management.OperatingSystemMXBean;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.WindowStore;

/**
 * The workloads of benchmarks/framework.py on Kafka Streams: arguments are NAME=VALUE. One
 * thread; its other settings are its own. It ends when all records are done and committed,
 * and says what it measured: marks of (records, seconds of CPU, moment).
 */
public class Workloads {
    static final ObjectMapper JSON = new ObjectMapper();
    static final AtomicLong DONE = new AtomicLong();

    public static void main(String[] arguments) throws Exception {
        Map<String, String> task = new HashMap<>();
        for (String argument : arguments) {
            int equals = argument.indexOf('=');
            task.put(argument.substring(0, equals), argument.substring(equals + 1));
        }
        long records = Long.parseLong(task.get("records"));
        AtomicBoolean failed = new AtomicBoolean();
        KafkaStreams streams = new KafkaStreams(topology(task), settings(task));
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            failed.set(true);
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.start();

        StringBuilder marks = new StringBuilder();
        while (DONE.get() < records && !failed.get()) {
            Thread.sleep(5);
            long done = DONE.get();
            if (done > 0) {
                marks.append(mark(done)).append(',');
            }
        }
        String peak = peak();
        boolean closed = streams.close(Duration.ofSeconds(60)); // which commits
        System.out.printf("{\"marks\": [%s%s], \"peak\": %s}%n", marks, mark(DONE.get()), peak);
        System.exit(closed && !failed.get() ? 0 : 1);
    }

    static org.apache.kafka.streams.Topology topology(Map<String, String> task) {
        StreamsBuilder builder = new StreamsBuilder();
        KStream<String, JsonNode> clicks = builder
            .stream(task.get("input"), Consumed.with(Serdes.String(), Serdes.ByteArray()))
            .mapValues(Workloads::parsed);
        switch (task.get("workload")) {
            case "map" -> clicks
                .mapValues(click -> {
                    ObjectNode changed = (ObjectNode) click;
                    changed.put("amount", changed.get("amount").asLong() + 1);
                    return written(changed);
                })
                .to(task.get("output"), Produced.with(Serdes.String(), Serdes.ByteArray()));
            case "count" -> clicks
                .groupByKey(Grouped.with(Serdes.String(), null))
                .aggregate(
                    () -> 0L,
                    (user, click, count) -> click.get("user") == null ? count : count + 1,
                    Materialized.<String, Long, KeyValueStore<Bytes, byte[]>>as("counts")
                        .withKeySerde(Serdes.String())
                        .withValueSerde(text()));
            case "window" -> clicks
                .groupByKey(Grouped.with(Serdes.String(), null))
                .windowedBy(TimeWindows.ofSizeWithNoGrace(Duration.ofSeconds(10)))
                .aggregate(
                    () -> 0L,
                    (user, click, count) -> click.get("user") == null ? count : count + 1,
                    Materialized.<String, Long, WindowStore<Bytes, byte[]>>as("counts")
                        .withKeySerde(Serdes.String())
                        .withValueSerde(text()));
            default -> throw new IllegalArgumentException(task.get("workload"));
        }
        return builder.build();
    }

    static Properties settings(Map<String, String> task) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, task.get("bootstrap"));
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, task.get("id"));
        settings.put(StreamsConfig.STATE_DIR_CONFIG, task.get("directory"));
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, task.get("commit_ms"));
        settings.put(
            StreamsConfig.PROCESSING_GUARANTEE_CONFIG,
            task.get("guarantee").equals("exactly_once")
                ? StreamsConfig.EXACTLY_ONCE_V2
                : StreamsConfig.AT_LEAST_ONCE);
        settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        settings.put(StreamsConfig.consumerPrefix("max.poll.records"), 1000);
        settings.put(StreamsConfig.producerPrefix("linger.ms"), task.get("linger_ms"));
        settings.put(StreamsConfig.producerPrefix("acks"), "all");
        return settings;
    }

    static JsonNode parsed(byte[] value) {
        DONE.incrementAndGet();
        try {
            return JSON.readTree(value);
        } catch (IOException error) {
            throw new IllegalArgumentException(error);
        }
    }

    static byte[] written(JsonNode value) {
        try {
            return JSON.writeValueAsBytes(value);
        } catch (IOException error) {
            throw new IllegalArgumentException(error);
        }
    }

    /** Numbers as everybody writes them here: in digits. */
    static Serde<Long> text() {
        return Serdes.serdeFrom(
            (topic, value) ->
                value == null ? null : Long.toString(value).getBytes(StandardCharsets.UTF_8),
            (topic, data) ->
                data == null ? null : Long.parseLong(new String(data, StandardCharsets.UTF_8)));
    }

    static String mark(long records) {
        OperatingSystemMXBean system =
            (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        return String.format(
            Locale.ROOT,
            "[%d, %.6f, %.6f]",
            records,
            system.getProcessCpuTime() / 1e9,
            System.nanoTime() / 1e9);
    }

    static String peak() throws IOException {
        for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
            if (line.startsWith("VmHWM")) {
                double kibibytes = Double.parseDouble(line.replaceAll("\\D+", ""));
                return String.format(Locale.ROOT, "%.1f", kibibytes / 1024);
            }
        }
        return "0";
    }
}
