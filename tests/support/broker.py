"""Our broker as users start it: `streamer broker` in a process of its own.

It listens on a port of the system's choice and writes the address to a file once
it serves, so nothing here guesses or sleeps. The data stays in the folder that the
caller gave: started again on it, the broker finds what it had.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.server import Server, wait_for, wait_until_serving

STREAMER = Path(sys.executable).with_name("streamer")


def start_streamer(
    directory: Path,
    *,
    settings: Mapping[str, str] | None = None,
    options: Sequence[str] = ("--port", "0"),
    data: Path | None = None,
    under: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Server:
    """Start `streamer broker` on `directory`; `settings` are Kafka's names (`--set`).

    `under` is a command that starts it in turn, with narrower limits say; `data` is where
    the log goes if not below `directory`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    data = data or directory / "data"
    address_file, output = directory / "address", directory / "output"
    address_file.unlink(missing_ok=True)
    command = [*under, STREAMER, "broker", *options]
    command += ["--data-dir", data, "--address-file", address_file]
    for name, value in (settings or {}).items():
        command += ["--set", f"{name}={value}"]

    started = time.monotonic()
    with output.open("ab") as sink:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=os.environ | (environment or {}),
        )
    wait_for(
        lambda: address_file.exists() and ":" in address_file.read_text(), process, output
    )
    address = address_file.read_text().strip()
    wait_until_serving(address, process, output)
    return Server("streamer", address, process, data, output, time.monotonic() - started)
