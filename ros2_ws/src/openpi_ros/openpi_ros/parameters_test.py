import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")

from openpi_ros.parameters import ParameterError, ParameterSpec, load_specs, parse_specs, unknown

SIMULATORS = ["aloha_sim_node", "franka_sim_node"]
NODES = ["common", "openpi_policy_node", "chunk_executor_node", *SIMULATORS, "bag_recorder_node"]


def spec(**fields: object) -> ParameterSpec:
    return ParameterSpec(**({"name": "age", "type": "double", "default": 0.5, "description": "Oldest."} | fields))


@pytest.mark.parametrize("node", NODES)
def test_every_declaration_is_complete(node: str) -> None:
    specs = load_specs(node)
    assert specs
    for entry in specs.values():
        assert entry.description.endswith("."), entry.name
        assert entry.check(entry.default) == entry.default


@pytest.mark.parametrize("node", SIMULATORS)
def test_a_declaration_includes_another(node: str) -> None:
    assert load_specs("simulation").items() < load_specs(node).items()


def test_a_node_without_declaration_is_a_sentence() -> None:
    with pytest.raises(ParameterError, match=r"There is no parameter declaration .*no_such_node.yaml"):
        load_specs("no_such_node")


def test_an_integer_is_taken_where_a_double_is_due() -> None:
    value = spec().check(2)
    assert value == 2.0
    assert isinstance(value, float)


@pytest.mark.parametrize("value", [-0.1, 5.1, float("nan"), float("inf"), "1", True, None, [1.0]])
def test_a_wrong_number_names_parameter_value_and_what_is_allowed(value: object) -> None:
    with pytest.raises(ParameterError) as caught:
        spec(unit="s", range=(0.0, 5.0)).check(value)
    told = str(caught.value)
    assert "Parameter 'age' is " + repr(value) in told
    assert "a double in s, from 0 to 5" in told


def test_choices() -> None:
    choice = spec(type="string", default="a", one_of=("a", "b"))
    assert choice.check("b") == "b"
    with pytest.raises(ParameterError, match="one of a, b"):
        choice.check("c")


def test_lists_are_checked_element_by_element() -> None:
    numbers = spec(type="double[]", default=[], range=(0.0, 1.0))
    assert numbers.check([0, 1.0]) == [0.0, 1.0]
    for wrong in ([0.0, 2.0], "01", 0.5):
        with pytest.raises(ParameterError, match="must be a double"):
            numbers.check(wrong)


def test_a_malformed_declaration_names_the_parameter() -> None:
    with pytest.raises(ParameterError, match="declaration of parameter 'x' is malformed"):
        parse_specs({"x": {"type": "int", "default": 1, "description": "X.", "minimum": 0}})
    with pytest.raises(ParameterError, match="type 'float' is none of"):
        parse_specs({"x": {"type": "float", "default": 1.0, "description": "X."}})
    with pytest.raises(ParameterError, match="Parameter 'x' is 5"):
        parse_specs({"x": {"type": "int", "default": 5, "range": [0, 1], "description": "X."}})


def test_an_unknown_parameter_is_told_its_nearest_name() -> None:
    assert "did you mean 'camera_max_age'?" in str(unknown("camera_maxage", ["robot", "camera_max_age"]))
    assert "known are: robot." in str(unknown("zzz", ["robot"]))
