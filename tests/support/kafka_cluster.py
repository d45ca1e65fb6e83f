"""Three nodes of Apache Kafka on this machine, each broker and controller in one.

Every topic has three copies, of which two must have a record before it is acknowledged;
so one node may be gone at any time. `kill` is kill -9; `start` brings the node back on its
port, with what is on its disk.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from support.kafka import (
    SETTINGS,
    as_properties,
    fetch_jars,
    free_ports,
    java,
    new_id,
    run_tool,
)
from support.server import Server, wait_until_serving

NODES = 3
HEAP = "400m"
COPIES = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    # A node that is gone is missed soon.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "controller.quorum.election.timeout.ms": "1000",
    "controller.quorum.fetch.timeout.ms": "2000",
    "replica.lag.time.max.ms": "5000",
}


class Cluster:
    def __init__(self, directory: Path) -> None:
        fetch_jars()
        self._directory = directory
        ports = free_ports(2 * NODES)
        self._ports, self._controllers = ports[:NODES], ports[NODES:]
        self._id = new_id()
        self._nodes: dict[int, Server] = {}
        for number in range(NODES):
            self._prepare(number)
        processes = {number: self._launch(number) for number in range(NODES)}
        for number, process in processes.items():
            self._nodes[number] = self._serving(number, process)

    @property
    def address(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self._ports)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        for node in self._nodes.values():
            node.process.kill()
        for node in self._nodes.values():
            node.process.wait()

    def kill(self, number: int) -> None:
        self._nodes[number].kill()

    def start(self, number: int) -> None:
        self._nodes[number] = self._serving(number, self._launch(number))

    def _folder(self, number: int) -> Path:
        return self._directory / f"node-{number}"

    def _prepare(self, number: int) -> None:
        folder = self._folder(number)
        folder.mkdir(parents=True, exist_ok=True)
        port, controller = self._ports[number], self._controllers[number]
        voters = ",".join(
            f"{one}@127.0.0.1:{self._controllers[one]}" for one in range(NODES)
        )
        properties = folder / "server.properties"
        properties.write_text(
            as_properties(
                SETTINGS
                | COPIES
                | {
                    "process.roles": "broker,controller",
                    "node.id": str(number),
                    "controller.quorum.voters": voters,
                    "controller.listener.names": "CONTROLLER",
                    "listeners": f"PLAINTEXT://127.0.0.1:{port},"
                    f"CONTROLLER://127.0.0.1:{controller}",
                    "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
                    "log.dirs": str(folder / "data"),
                }
            )
        )
        run_tool("kafka.tools.StorageTool", "format", "-t", self._id, "-c", str(properties))

    def _launch(self, number: int) -> subprocess.Popen[bytes]:
        folder = self._folder(number)
        with (folder / "output").open("ab") as sink:
            return subprocess.Popen(
                [*java(HEAP), "kafka.Kafka", str(folder / "server.properties")],
                stdout=sink,
                stderr=subprocess.STDOUT,
            )

    def _serving(self, number: int, process: subprocess.Popen[bytes]) -> Server:
        folder, started = self._folder(number), time.monotonic()
        address = f"127.0.0.1:{self._ports[number]}"
        wait_until_serving(address, process, folder / "output")
        return Server(
            "kafka",
            address,
            process,
            folder / "data",
            folder / "output",
            time.monotonic() - started,
        )
