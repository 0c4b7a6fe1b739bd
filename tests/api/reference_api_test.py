"""Every public name of the published openpi API: it exists, with those parameters in that order and those defaults.

api.json holds the names. What we add is optional and keyword-only, so that no call written for openpi changes meaning.
"""

import importlib
import importlib.util
import inspect
import json
import pathlib
from typing import Any

import jax
import pytest

MODULES = json.loads(pathlib.Path(__file__).with_name("api.json").read_text())["modules"]

# Of these only Config, get_config, LoRAConfig and the constants are contract; the layers are ours to shape.
OPEN_MODULES = ("openpi.models.gemma", "openpi.models.siglip", "openpi.models.lora")
OPEN_MODULE_NAMES = ("Config", "get_config", "LoRAConfig")

NAMES = [
    (module, name)
    for module, names in MODULES.items()
    for name in names
    if name != "constants" and (module not in OPEN_MODULES or name in OPEN_MODULE_NAMES)
]
# Wrapped in the reference, so that api.json could not see them.
WRAPPED = {
    "openpi.shared.image_tools": {"resize_with_pad": ["images", "height", "width", "method"]},
    "openpi_client.msgpack_numpy": {"Packer": [], "packb": [], "Unpacker": [], "unpackb": []},
}


def load(module: str) -> Any:
    if module.startswith("openpi.models_pytorch") and importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    return importlib.import_module(module)


def parameters(function: Any) -> dict[str, inspect.Parameter]:
    return {name: p for name, p in inspect.signature(function).parameters.items() if name != "self"}


def same_default(default: Any, want: Any) -> bool:
    """api.json writes values that JSON has no word for as their repr, cut at 80 characters, or their type's name."""
    if isinstance(default, tuple) and isinstance(want, list):
        default = list(default)
    if want == "ABCMeta":  # what the type of jax.Array, the one default that is a class, was
        return default is jax.Array
    return default == want or (
        isinstance(want, str) and (repr(default)[:80] == want or type(default).__name__.strip("_") == want.strip("_"))
    )


def check_parameters(function: Any, wanted: list[dict[str, Any]], where: str) -> None:
    fixed = [p for p in wanted if not p.get("variadic")]
    got = parameters(function)
    assert [name for name in got if name in {p["name"] for p in fixed}] == [p["name"] for p in fixed], where
    for want in fixed:
        ours = got[want["name"]]
        at = f"{where}({want['name']})"
        if want.get("keyword_only"):
            assert ours.kind is inspect.Parameter.KEYWORD_ONLY, at
        else:
            assert ours.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD, at
        if "default" in want:
            assert same_default(ours.default, want["default"]), f"{at}: {ours.default!r}, not {want['default']!r}"
        else:
            assert ours.default is inspect.Parameter.empty, f"{at} has become optional"
    if len(fixed) == len(wanted):
        check_additions(got, {p["name"] for p in fixed}, where)


def check_additions(got: dict[str, inspect.Parameter], known: set[str], where: str) -> None:
    for name, added in got.items():
        if name in known or added.kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
            continue
        assert added.kind is inspect.Parameter.KEYWORD_ONLY, f"{where}({name}) is an addition, so keyword-only"
        assert added.default is not inspect.Parameter.empty, f"{where}({name}) is an addition, so optional"


@pytest.mark.parametrize(("module", "name"), NAMES, ids=[f"{m}.{n}" for m, n in NAMES])
def test_name(module, name):
    want = MODULES[module][name]
    ours = getattr(load(module), name)
    where = f"{module}.{name}"
    if "values" in want:
        assert {member.name: member.value for member in ours} == want["values"]
        return
    assert inspect.isclass(ours) == (want["kind"] == "class"), where
    check_parameters(ours, want["parameters"], where)
    for member, wanted in want.get("members", {}).items():
        if member == "init_fn":
            continue  # a field whose default is JAX's function, with JAX's parameters
        if wanted == "property":
            assert not callable(inspect.getattr_static(ours, member)), f"{where}.{member} is a property"
        else:
            check_parameters(getattr(ours, member), wanted, f"{where}.{member}")


@pytest.mark.parametrize("module", [module for module in MODULES if "constants" in MODULES[module]])
def test_constants(module):
    ours = load(module)
    for name, value in MODULES[module]["constants"].items():
        got = getattr(ours, name)
        assert (list(got) if isinstance(got, tuple) else got) == value, f"{module}.{name}"


@pytest.mark.parametrize("module", WRAPPED)
def test_wrapped_names(module):
    for name, wanted in WRAPPED[module].items():
        function = getattr(load(module), name)
        assert callable(function)
        if wanted:
            assert list(parameters(function))[: len(wanted)] == wanted


@pytest.mark.parametrize("module", MODULES)
def test_documented(module):
    """Every public name says what it is."""
    ours = load(module)
    names = [name for m, name in NAMES if m == module]
    assert not [name for name in names if not inspect.getdoc(getattr(ours, name))]
