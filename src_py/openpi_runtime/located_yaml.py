"""YAML whose every complaint says where: file, line, field, value, and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

# libyaml, where PyYAML was built with it, reads ten times as fast; every process of a stack reads some files.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RELATIVE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")


class SpecError(ValueError):
    """A description file is wrong; the message names file, line, field, value and what is allowed."""


class Entry:
    """One YAML value with its place in the file. `field` is the dotted path from the top of the file."""

    def __init__(self, node: yaml.Node, source: str, field: str = "") -> None:
        self._node = node
        self._source = source
        self.field = field

    @property
    def value(self) -> Any:
        """The plain Python value."""
        loader = LOADER("")
        try:
            return loader.construct_document(self._node)
        finally:
            loader.dispose()

    def error(self, problem: str) -> SpecError:
        """The error to raise about this value; `problem` ends the sentence."""
        line = self._node.start_mark.line + 1
        return SpecError(f"{self._source}, line {line}: {self.field or 'the file'} {problem}")

    def wrong(self, allowed: str) -> SpecError:
        """The error for a value outside what is allowed."""
        return self.error(f"is {self.value!r}; allowed: {allowed}")

    def mapping(self, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()) -> dict[str, Entry]:
        """The entries of a mapping that has every required key and none that is not listed.

        Raises:
            SpecError: not a mapping, a key is missing, or a key is unknown.
        """
        entries = self.entries()
        for name, entry in entries.items():  # first, since a misspelt field is a missing one too
            if name not in required + optional:
                raise entry.error(f"is not a known field; allowed: {', '.join(required + optional)}")
        for name in required:
            if name not in entries:
                raise self.error(f"lacks the field {name!r}; needed are {', '.join(required)}")
        return entries

    def entries(self) -> dict[str, Entry]:
        """The entries of a mapping with any keys, each once."""
        if not isinstance(self._node, yaml.MappingNode):
            raise self.wrong("a mapping (name: value)")
        found: dict[str, Entry] = {}
        for key, value in self._node.value:
            child = Entry(value, self._source, f"{self.field}.{key.value}" if self.field else str(key.value))
            if key.value in found:
                raise child.error("is given twice")
            found[key.value] = child
        return found

    def items(self) -> Iterator[Entry]:
        """The entries of a list that is not empty."""
        if not isinstance(self._node, yaml.SequenceNode) or not self._node.value:
            raise self.wrong("a list with at least one entry")
        for i, node in enumerate(self._node.value):
            yield Entry(node, self._source, f"{self.field}[{i}]")

    def text(self, choices: tuple[str, ...] = ()) -> str:
        """A non-empty string, one of `choices` where they are given."""
        value = self.value
        if not isinstance(value, str) or not value:
            raise self.wrong("a text that is not empty")
        if choices and value not in choices:
            raise self.wrong(", ".join(choices))
        return value

    def relative_name(self) -> str:
        """The relative name of a topic or action."""
        name = self.text()
        if not _RELATIVE_NAME.fullmatch(name):
            raise self.wrong(
                "a relative topic name, so that a namespace moves the whole robot: letters, digits and _ between "
                "slashes, none of the parts beginning with a digit"
            )
        return name

    def number(self, low: float, high: float) -> float:
        """A number in [low, high]."""
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.wrong(f"a number from {low:g} to {high:g}")
        return float(value)

    def integer(self, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(f"a whole number from {low} to {high}")
        return value

    def flag(self) -> bool:
        """true or false."""
        if not isinstance(self.value, bool):
            raise self.wrong("true or false")
        return bool(self.value)


def load(path: Path) -> Entry:
    """Reads one YAML document.

    Raises:
        SpecError: the file cannot be read, is not YAML, or is empty.
    """
    try:
        node = yaml.compose(path.read_text(), LOADER)
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror or error}") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SpecError(f"{path}{line}: this is not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if node is None:
        raise SpecError(f"{path} is empty; a description is expected")
    return Entry(node, str(path))
