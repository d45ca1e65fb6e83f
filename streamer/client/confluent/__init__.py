"""Kafka by way of librdkafka: the only folder that imports confluent_kafka.

librdkafka fetches, decompresses, batches and retries in threads of its own; we
hand it records and take batches of records from it. What we set, and why, is in
`client/librdkafka.py`.
"""
