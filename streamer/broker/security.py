"""Who a connection speaks for, and what they may do.

Every connection gets a `Session` when it is accepted, and every handler asks
`session.may(...)` before it touches a resource. There is no login yet: everybody
is ANONYMOUS and may do everything, as in Apache Kafka without an authorizer. A
login replaces `session.principal`, a rule book replaces `EverythingAllowed`.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import Protocol


class Operation(IntEnum):
    """What may be allowed or denied, numbered as in Kafka's ACLs."""

    READ = 3
    WRITE = 4
    CREATE = 5
    DELETE = 6
    ALTER = 7
    DESCRIBE = 8
    DESCRIBE_CONFIGS = 10
    ALTER_CONFIGS = 11
    IDEMPOTENT_WRITE = 12


class ResourceType(IntEnum):
    """What operations are done on, numbered as in Kafka's ACLs."""

    TOPIC = 2
    GROUP = 3
    CLUSTER = 4
    TRANSACTIONAL_ID = 5


@dataclass(frozen=True, slots=True)
class Resource:
    type: ResourceType
    name: str


CLUSTER = Resource(ResourceType.CLUSTER, "kafka-cluster")


@lru_cache(maxsize=4096)
def topic(name: str) -> Resource:
    return Resource(ResourceType.TOPIC, name)


@lru_cache(maxsize=4096)
def group(group_id: str) -> Resource:
    return Resource(ResourceType.GROUP, group_id)


@lru_cache(maxsize=4096)
def transactional_id(name: str) -> Resource:
    return Resource(ResourceType.TRANSACTIONAL_ID, name)


@dataclass(frozen=True, slots=True)
class Principal:
    type: str
    name: str


ANONYMOUS = Principal("User", "ANONYMOUS")

# What a client is told it may do with a resource, as a bit per operation.
OPERATIONS = {
    ResourceType.TOPIC: (
        Operation.READ,
        Operation.WRITE,
        Operation.CREATE,
        Operation.DELETE,
        Operation.ALTER,
        Operation.DESCRIBE,
        Operation.DESCRIBE_CONFIGS,
        Operation.ALTER_CONFIGS,
    ),
    ResourceType.GROUP: (
        Operation.READ,
        Operation.DELETE,
        Operation.DESCRIBE,
        Operation.DESCRIBE_CONFIGS,
        Operation.ALTER_CONFIGS,
    ),
    ResourceType.TRANSACTIONAL_ID: (Operation.WRITE, Operation.DESCRIBE),
    ResourceType.CLUSTER: (
        Operation.CREATE,
        Operation.ALTER,
        Operation.DESCRIBE,
        Operation.DESCRIBE_CONFIGS,
        Operation.ALTER_CONFIGS,
        Operation.IDEMPOTENT_WRITE,
    ),
}


class Authorizer(Protocol):
    def allows(self, principal: Principal, operation: Operation, on: Resource) -> bool: ...


class EverythingAllowed:
    def allows(self, principal: Principal, operation: Operation, on: Resource) -> bool:
        return True


@dataclass(slots=True)
class Session:
    """One connection, as handlers know it: who is there, and where it came in."""

    peer: str
    listener: int
    reached: str = "127.0.0.1"
    """Our own address, as this client reached it."""
    authorizer: Authorizer = field(default_factory=EverythingAllowed)
    principal: Principal = ANONYMOUS
    software: str = ""

    @property
    def host(self) -> str:
        """The client's address, without its port."""
        return self.peer.rpartition(":")[0]

    def may(self, operation: Operation, on: Resource) -> bool:
        return self.authorizer.allows(self.principal, operation, on)

    def allowed_bits(self, on: Resource) -> int:
        """Metadata's and DescribeCluster's authorized operations."""
        return sum(
            1 << operation for operation in OPERATIONS[on.type] if self.may(operation, on)
        )
