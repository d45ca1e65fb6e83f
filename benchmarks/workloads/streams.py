"""Kafka Streams, where Java is: `benchmarks/streams/Workloads.java`, compiled at need."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from support.kafka import JARS, fetch_jars, java, why_not_here

from benchmarks.contenders import NotHere

SOURCE = Path(__file__).resolve().parent.parent / "streams" / "Workloads.java"
HEAP = "1g"


def command(task: dict[str, Any], classes: Path) -> list[str]:
    """What starts it; the task goes as NAME=VALUE."""
    if reason := why_not_here():
        raise NotHere(reason)
    fetch_jars()
    if not (classes / f"{SOURCE.stem}.class").exists():
        classes.mkdir(parents=True, exist_ok=True)
        compiler = ["javac", "-cp", f"{JARS}/*", "-d", str(classes), str(SOURCE)]
        subprocess.run(compiler, check=True, timeout=60)
    words = [f"{name}={value}" for name, value in task.items()]
    return [*java(HEAP, classes), SOURCE.stem, *words]
