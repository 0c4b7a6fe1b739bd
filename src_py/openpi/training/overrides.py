"""Changing a config's fields from the command line."""

import dataclasses
import json
import typing
from collections.abc import Sequence
from typing import Any

import tyro
from flax import nnx

from openpi.models import gemma, siglip
from openpi.training.train_config import TrainConfig

_registry = tyro.constructors.ConstructorRegistry()


def override(config: TrainConfig, args: Sequence[str], *, prog: str) -> TrainConfig:
    """The config with the fields changed that `--field value` options set.

    Dots lead into nested fields (`--model.action-horizon 16`). A model's variant is set by its name, policy metadata
    by JSON; the freeze filter cannot be set.
    """
    # tyro would look for options inside a filter, which has none that it understands.
    plain = dataclasses.replace(config, freeze_filter=nnx.Nothing())
    parsed = tyro.cli(TrainConfig, args=args, default=plain, prog=prog, registry=_registry)
    return dataclasses.replace(parsed, freeze_filter=config.freeze_filter)


@_registry.primitive_rule
def _variant(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """A variant's name; without this rule, `str | gemma.Config` becomes a subcommand."""
    if not any(part in (gemma.Config, siglip.Config) for part in typing.get_args(info.type)):
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="NAME",
        instance_from_str=lambda args: args[0],
        is_instance=lambda value: isinstance(value, str | gemma.Config | siglip.Config),
        str_from_instance=lambda value: [str(value)],
    )


@_registry.primitive_rule
def _metadata(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """A dict of anything, as JSON."""
    if info.type != dict[str, Any] | None:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="JSON",
        instance_from_str=lambda args: _json_object(args[0]),
        is_instance=lambda value: value is None or isinstance(value, dict),
        str_from_instance=lambda value: [json.dumps(value)],
    )


def _json_object(text: str) -> dict[str, Any] | None:
    value = json.loads(text)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"give a JSON object or null, not {text}")
    return value
