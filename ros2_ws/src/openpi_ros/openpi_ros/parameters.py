"""Node parameters, declared once per node in `parameters/<node>.yaml`.

An entry of such a file is a parameter's name and::

    max_age:
      type: double              # bool | int | double | string | bool[] | int[] | double[] | string[]
      default: 0.5
      unit: s                   # optional, shown with the description
      range: [0.0, 5.0]         # optional, inclusive; of a list: of each element
      one_of: [a, b]            # optional; of a list: of each element
      live: true                # optional: may change while the node is configured
      description: Oldest observation used.

`include: FILE` takes the entries of another declaration file, before and below its own.

Values are checked when the node is configured, not when it is constructed, so that a wrong one is answered by one
sentence with the parameter's name, its value and what is allowed. Parameters nobody declared are refused too: a
misspelt limit must not be ignored.
"""

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

import yaml
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from openpi_runtime.located_yaml import LOADER

_SCALARS: dict[str, type] = {"bool": bool, "int": int, "double": float, "string": str}
# Declared by rclpy itself, or by tools for every node.
_FOREIGN_PARAMETERS = ("use_sim_time", "qos_overrides.", "start_type_description_service")


class ParameterError(ValueError):
    """A parameter has a value that is not allowed, or is not known."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParameterSpec:
    """What a parameter may be; see the module's docstring."""

    name: str
    type: str
    default: Any
    description: str
    unit: str = ""
    range: tuple[float, float] | None = None
    one_of: tuple[Any, ...] = ()
    live: bool = False

    def __post_init__(self) -> None:
        if self.type.removesuffix("[]") not in _SCALARS:
            raise ParameterError(f"Parameter '{self.name}': its type '{self.type}' is none of {sorted(_SCALARS)}, [].")
        self.check(self.default)

    @property
    def is_list(self) -> bool:
        return self.type.endswith("[]")

    def allowed(self) -> str:
        """What is allowed, in words."""
        article = "an" if self.type.startswith("int") else "a"
        parts = [f"{article} {self.type}" + (f" in {self.unit}" if self.unit else "")]
        if self.range:
            parts.append(f"from {self.range[0]:.10g} to {self.range[1]:.10g}")
        if self.one_of:
            parts.append("one of " + ", ".join(str(choice) for choice in self.one_of))
        return ", ".join(parts)

    def check(self, value: Any) -> Any:
        """Returns the value as the type says (an int becomes a float where a double is due).

        Raises:
            ParameterError: the value is of another type, out of range, or none of the choices.
        """
        if not self.is_list:
            return self._check_one(value, value)
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise self._error(value)
        return [self._check_one(element, value) for element in value]

    def _check_one(self, element: Any, value: Any) -> Any:
        scalar = _SCALARS[self.type.removesuffix("[]")]
        if scalar is float and type(element) is int:
            element = float(element)
        in_range = self.range is None or (isinstance(element, int | float) and self._in_range(element))
        if type(element) is not scalar or not in_range or (self.one_of and element not in self.one_of):
            raise self._error(value)
        return element

    def _in_range(self, number: float) -> bool:
        assert self.range is not None
        return math.isfinite(number) and self.range[0] <= number <= self.range[1]

    def _error(self, value: Any) -> ParameterError:
        return ParameterError(
            f"Parameter '{self.name}' is {value!r}, but must be {self.allowed()}. ({self.description})"
        )

    def descriptor(self, *, dynamic: bool = True) -> ParameterDescriptor:
        # Dynamic typing and no ranges: rclpy would refuse at construction, with less to say than `check`.
        unit = f" [{self.unit}]" if self.unit else ""
        return ParameterDescriptor(
            description=self.description + unit, additional_constraints=self.allowed(), dynamic_typing=dynamic
        )


def load_specs(node_name: str) -> dict[str, ParameterSpec]:
    """Reads `parameters/<node_name>.yaml`. Raises ParameterError if there is none or it is malformed."""
    file = resources.files("openpi_ros").joinpath("parameters", f"{node_name}.yaml")
    if not file.is_file():
        raise ParameterError(f"There is no parameter declaration {file}; add it beside the others.")
    entries = yaml.load(file.read_text(), LOADER) or {}
    included = entries.pop("include", "")
    return (load_specs(included) if included else {}) | parse_specs(entries)


def parse_specs(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, ParameterSpec]:
    """Specs by name, from the content of a declaration file."""
    specs = {}
    for name, entry in entries.items():
        fields = dict(entry)
        for key in ("range", "one_of"):
            if key in fields:
                fields[key] = tuple(fields[key])
        try:
            specs[name] = ParameterSpec(name=name, **fields)
        except TypeError as error:
            raise ParameterError(f"The declaration of parameter '{name}' is malformed: {error}.") from error
    return specs


def declare(node: Node, specs: Mapping[str, ParameterSpec]) -> None:
    """Declares the parameters on a node that declared its overrides automatically."""
    for name, spec in specs.items():
        if node.has_parameter(name):
            node.set_descriptor(name, spec.descriptor())
        else:
            default = _ros_default(spec)
            # An empty list is declared by its type, and rclpy takes no dynamic typing then.
            dynamic = not isinstance(default, Parameter.Type)
            node.declare_parameter(name, default, spec.descriptor(dynamic=dynamic))


def read(node: Node, specs: Mapping[str, ParameterSpec]) -> dict[str, Any]:
    """The checked values by name.

    Raises:
        ParameterError: the first parameter that is wrong, or that nobody declared.
    """
    for name in sorted(node.get_parameters_by_prefix("")):
        if name not in specs and not name.startswith(_FOREIGN_PARAMETERS):
            raise unknown(name, specs)
    return {name: spec.check(_plain(node.get_parameter_or(name))) for name, spec in specs.items()}


def unknown(name: str, specs: Iterable[str]) -> ParameterError:
    """The error for a parameter that was not declared, with the nearest known name."""
    known = sorted(specs)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else "known are: " + ", ".join(known) + "."
    return ParameterError(f"Parameter '{name}' is not known to this node; {hint}")


def _ros_default(spec: ParameterSpec) -> Any:
    # rclpy cannot tell the type of an empty list; an explicit one keeps `ros2 param get` readable.
    types = {"bool": "BOOL", "int": "INTEGER", "double": "DOUBLE", "string": "STRING"}
    if spec.is_list and not spec.default:
        return Parameter.Type[types[spec.type[:-2]] + "_ARRAY"]
    return spec.default


def _plain(parameter: Parameter) -> Any:
    if parameter.type_ == Parameter.Type.NOT_SET:
        return []
    return list(parameter.value) if hasattr(parameter.value, "tolist") else parameter.value
