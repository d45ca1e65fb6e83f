"""A real Apache Kafka on this machine: what our broker is compared with.

One KRaft node (broker and controller in one process) on free ports, its data in a
folder of the caller's. The jars come from Maven Central once, into
`~/.cache/streamer-kafka-VERSION` (`KAFKA_JARS` names another folder); Java 17 and,
for that first time, Maven are needed. Kafka's own command line tools are classes of
the same jars: `run_tool`. Programs of our own on Kafka's Java libraries are in `java/`:
`start_java`.
"""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from support.server import PROMPT, Server, wait_until_serving

VERSION = os.environ.get("KAFKA_VERSION", "4.1.1")
JARS = Path(
    os.environ.get("KAFKA_JARS") or Path.home() / ".cache" / f"streamer-kafka-{VERSION}"
)

# One node cannot keep three copies.
SETTINGS = {
    "num.partitions": "4",
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
} | PROMPT

# The options of Kafka's own start script, without those that only write logs.
JAVA_OPTIONS = (
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
)

POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>streamer.test</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>{}</dependencies>
</project>
"""


def why_not_here() -> str | None:
    """Why Apache Kafka cannot run on this machine; None when it can."""
    if shutil.which("java") is None:
        return "Apache Kafka needs Java 17, and there is no `java` on the PATH."
    if not complete() and shutil.which("mvn") is None:
        return f"Maven (`mvn`) is needed once, to fetch Apache Kafka into {JARS}."
    return None


def complete() -> bool:
    return (JARS / ".complete").exists()


def fetch_jars() -> None:
    """Bring Kafka and its tools from Maven Central, unless they are here already."""
    if complete():
        return
    wanted = [
        ("org.apache.kafka", "kafka_2.13", VERSION),
        ("org.apache.kafka", "kafka-tools", VERSION),
        ("org.apache.kafka", "kafka-streams", VERSION),
        ("org.slf4j", "slf4j-nop", "1.7.36"),
    ]
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
        f"<version>{version}</version></dependency>"
        for group, artifact, version in wanted
    )
    pom = JARS / "pom" / "pom.xml"
    pom.parent.mkdir(parents=True, exist_ok=True)
    pom.write_text(POM.format(dependencies))
    subprocess.run(
        [
            *("mvn", "-q", "-B", "-f", str(pom)),
            *("dependency:copy-dependencies", f"-DoutputDirectory={JARS}"),
        ],
        check=True,
    )
    (JARS / ".complete").touch()


def start_kafka(
    directory: Path,
    *,
    heap: str = "512m",
    settings: Mapping[str, str] | None = None,
    listeners: Mapping[str, int] | None = None,
    formatted_with: Sequence[str] = (),
) -> Server:
    """Start one node on `directory`; data left there by an earlier node is kept.

    It listens in plain text, and by the names and ports of `listeners` too, which
    `settings` explain. `formatted_with`: what it should know before it first starts.
    """
    fetch_jars()
    data, output = directory / "data", directory / "output"
    directory.mkdir(parents=True, exist_ok=True)
    port, controller_port = free_ports(2)
    properties = directory / "server.properties"
    ports = {"PLAINTEXT": port, **(listeners or {})}
    served = ",".join(f"{name}://127.0.0.1:{each}" for name, each in ports.items())
    properties.write_text(
        as_properties(
            {
                "process.roles": "broker,controller",
                "node.id": "0",
                "controller.quorum.voters": f"0@127.0.0.1:{controller_port}",
                "controller.listener.names": "CONTROLLER",
                "listeners": f"{served},CONTROLLER://127.0.0.1:{controller_port}",
                "advertised.listeners": served,
                "log.dirs": str(data),
            }
            | SETTINGS
            | dict(settings or {})
        )
    )
    if not (data / "meta.properties").exists():
        run_tool(
            *("kafka.tools.StorageTool", "format", "-t", new_id()),
            *("-c", str(properties), *formatted_with),
        )

    started = time.monotonic()
    with output.open("ab") as sink:
        process = subprocess.Popen(
            [*java(heap), "kafka.Kafka", str(properties)],
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    address = f"127.0.0.1:{port}"
    wait_until_serving(address, process, output)
    return Server("kafka", address, process, data, output, time.monotonic() - started)


def run_tool(
    name: str, *arguments: str, stdin: str = "", timeout: float = 50
) -> subprocess.CompletedProcess[str]:
    """Run one of Kafka's own tools, named by its class; raises when it fails."""
    fetch_jars()
    result = subprocess.run(
        [*java("256m"), "-XX:TieredStopAtLevel=1", name, *arguments],
        input=stdin,
        text=True,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    if result.returncode != 0:
        raise AssertionError(
            f"{name} {' '.join(arguments)} ended with {result.returncode}:\n"
            f"{result.stdout}\n{result.stderr}"
        )
    return result


def start_java(
    name: str, *arguments: str, directory: Path, heap: str = "256m"
) -> subprocess.Popen[bytes]:
    """Start `java/NAME.java`, compiled into `directory`; what it says is in `NAME.out`."""
    fetch_jars()
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / f"{name}.class").exists():
        source = Path(__file__).with_name("java") / f"{name}.java"
        compiler = ["javac", "-cp", f"{JARS}/*", "-d", str(directory), str(source)]
        subprocess.run(compiler, check=True, timeout=60)
    with (directory / f"{name}.out").open("ab") as sink:
        return subprocess.Popen(
            [*java(heap, directory), name, *arguments],
            stdin=subprocess.PIPE,  # closed, it tells the program to stop
            stdout=sink,
            stderr=subprocess.STDOUT,
        )


def java(heap: str, *folders: Path) -> list[str]:
    classes = ":".join([f"{JARS}/*", *(str(folder) for folder in folders)])
    return ["java", f"-Xms{heap}", f"-Xmx{heap}", *JAVA_OPTIONS, "-cp", classes]


def new_id() -> str:
    """A cluster id as Kafka writes it: a UUID in URL-safe base64, not like an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; held together, so that they differ."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def as_properties(settings: Mapping[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in settings.items())
