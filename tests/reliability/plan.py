"""Who takes part in the trial, and what the topics and groups are called.

feeder-0, -1       idempotent producers → `input`, four partitions
copier-0 ... -3    `input` → `output`, each record to both partitions, by transactions
audit-0, -1        a group of two that reads `output`
watch-0            a group of one that reads `output` too
"""

from __future__ import annotations

INPUT, INPUT_PARTITIONS = "input", 4
OUTPUT, OUTPUT_PARTITIONS = "output", 2
COPIERS = "copiers"

FEEDER_NAMES = [f"feeder-{n}" for n in range(2)]
COPIER_NAMES = [f"copier-{n}" for n in range(4)]
READER_NAMES = ["audit-0", "audit-1", "watch-0"]


def group_of(reader: str) -> str:
    return reader.partition("-")[0]


READER_GROUPS = sorted({group_of(name) for name in READER_NAMES})
