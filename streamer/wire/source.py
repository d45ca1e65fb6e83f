"""Python text under construction: lines, indentation, the names it refers to."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Source:
    def __init__(self, signature: str) -> None:
        self.lines = [f"def {signature}:"]
        self.names: dict[str, Any] = {}
        self.depth = 1

    def add(self, line: str) -> None:
        self.lines.append("    " * self.depth + line)

    @contextmanager
    def block(self, opening: str) -> Iterator[None]:
        """What is added inside stands below `opening`, one step further in."""
        self.add(opening)
        self.depth += 1
        yield
        self.depth -= 1

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"

    def compile(self, name: str) -> Any:
        """The function that this is the text of; tracebacks call its file `name`."""
        exec(compile(self.text, f"<{name}>", "exec"), self.names)
        return self.names[self.lines[0].partition("(")[0].removeprefix("def ")]
