"""The broker: serves the log to any Kafka client. It starts in `server.py`."""
