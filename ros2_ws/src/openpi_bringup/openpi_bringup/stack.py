"""What a stack is made of: arguments that are checked, and processes that are ready to be started."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_prefix

Values = Mapping[str, str]
BOOLEANS = ("true", "false")


class StackError(ValueError):
    """A stack or an argument is unknown, or an argument's value is not allowed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Argument:
    """A launch argument; empty `choices` allow any text."""

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()
    check: Callable[[str], str] = lambda _: ""

    def validate(self, value: str) -> str:
        """Returns the value. Raises StackError, with what is allowed, if it is wrong."""
        if self.choices and value not in self.choices:
            raise StackError(f"Argument {self.name}:={value!r} must be one of: {', '.join(self.choices)}.")
        if complaint := self.check(value):
            raise StackError(f"Argument {self.name}:={value!r} {complaint}")
        return value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Process:
    """One node of a stack, ready to be started.

    Attributes:
        optional: where its package is not installed, the stack starts without it and says so.
        arguments: further command-line arguments (rviz2's `-d FILE`).
    """

    package: str
    executable: str
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    parameter_files: tuple[Path, ...] = ()
    remaps: Mapping[str, str] = dataclasses.field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    optional: bool = False

    @property
    def missing(self) -> str:
        """A sentence if its package is not installed, else empty."""
        try:
            get_package_prefix(self.package)
        except PackageNotFoundError:
            debian = "ros-jazzy-" + self.package.replace("_", "-")
            return f"{self.executable} is not started: package '{self.package}' is not installed (apt: {debian})."
        return ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stack:
    """A named set of processes and the arguments that shape them."""

    name: str
    description: str
    arguments: tuple[Argument, ...]
    compose: Callable[[Values], list[Process]]

    def resolve(self, given: Values) -> dict[str, str]:
        """All arguments with their values. Raises StackError for unknown names and wrong values."""
        known = {argument.name: argument for argument in self.arguments}
        for name in given:
            if name not in known:
                raise StackError(unknown_name("argument", name, list(known), f"of stack '{self.name}'"))
        values = {name: argument.validate(given.get(name, argument.default)) for name, argument in known.items()}
        if values.get("use_sim_time") == "auto":
            values["use_sim_time"] = values.get("sim", "false")
        return values

    def processes(self, values: Values) -> list[Process]:
        """What to start for resolved values; raises StackError if a package that must be there is missing."""
        processes = self.compose(values)
        for process in processes:
            if process.missing and not process.optional:
                raise StackError(process.missing + " Build the workspace: make build.")
        return processes


def unknown_name(kind: str, name: str, known: list[str], where: str) -> str:
    """The sentence about a name that is not known, with the nearest one that is."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(known)}."
    return f"There is no {kind} '{name}'{' ' if where else ''}{where}. {hint}"
