"""Circles in a graph: Tarjan's components, and one short way round in each.

Without recursion, since a history has more transactions than Python has stack.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

Edges = Mapping[str, set[str]]


def cycles(edges: Edges) -> list[list[str]]:
    """One of the shortest circles of each component, its smallest name first."""
    found = (shortest_circle(edges, part) for part in components(edges) if len(part) > 1)
    return sorted(found)


def components(edges: Edges) -> Iterator[set[str]]:
    """The sets of nodes that can all reach each other."""
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    on_stack: set[str] = set()
    stack: list[str] = []
    for root in sorted(edges):
        if root in index:
            continue
        # The way from the root to where we are: a node, and who is still to be visited.
        path = [(root, iter(sorted(edges.get(root, ()))))]
        while path:
            node, followers = path[-1]
            if node not in index:
                index[node] = lowest[node] = len(index)
                stack.append(node)
                on_stack.add(node)
            for follower in followers:
                if follower not in index:
                    path.append((follower, iter(sorted(edges.get(follower, ())))))
                    break
                if follower in on_stack:
                    lowest[node] = min(lowest[node], index[follower])
            else:
                path.pop()
                if path:
                    above = path[-1][0]
                    lowest[above] = min(lowest[above], lowest[node])
                if lowest[node] == index[node]:
                    yield cut(stack, on_stack, node)


def cut(stack: list[str], on_stack: set[str], node: str) -> set[str]:
    """Take the component that `node` heads off the stack."""
    part: set[str] = set()
    while node not in part:
        part.add(stack.pop())
    on_stack -= part
    return part


def shortest_circle(edges: Edges, part: set[str]) -> list[str]:
    start = min(part)
    came_from: dict[str, str] = {}
    waiting = deque([start])
    while waiting:
        node = waiting.popleft()
        for follower in sorted(edges.get(node, set()) & part):
            if follower == start:
                return way_back(came_from, start, node)
            if follower not in came_from:
                came_from[follower] = node
                waiting.append(follower)
    raise AssertionError(f"{start} is in a component and cannot reach itself.")


def way_back(came_from: Mapping[str, str], start: str, node: str) -> list[str]:
    found = [node]
    while found[-1] != start:
        found.append(came_from[found[-1]])
    return found[::-1]
