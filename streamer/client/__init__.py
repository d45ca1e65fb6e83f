"""What the framework and the command line need of Kafka, and one way to get it."""
