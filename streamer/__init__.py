"""Stream processing for Python, with a log that speaks the Apache Kafka protocol.

Where to start reading: `wire` turns bytes into messages and back, `log` keeps
records on disk, `broker` serves them to any Kafka client; `cli` is the
`streamer` command.
"""

__version__ = "0.1.0"
