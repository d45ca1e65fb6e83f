"""The log: partitions of records on disk, in Apache Kafka's format."""
