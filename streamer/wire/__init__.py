"""Bytes into messages and back: frames, headers, messages, record batches. No I/O."""
