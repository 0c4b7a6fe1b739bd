"""Each stack, described once: its arguments, its processes, their parameters and remaps.

Two thin adapters consume it: `launch/*.launch.py` (`ros2 launch`) and `openpi_bringup.up` (`openpi-up`).
"""

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory

from openpi_bringup.stack import BOOLEANS, Argument, Process, Stack, StackError, Values, unknown_name


def _share(*parts: str) -> Path:
    return Path(get_package_share_directory("openpi_bringup")).joinpath(*parts)


def _port(value: str) -> str:
    allowed = value.isdecimal() and 1 <= int(value) <= 65535
    return "" if allowed else "must be a port number from 1 to 65535."


def _namespace(value: str) -> str:
    tokens = value.strip("/").split("/") if value.strip("/") else []
    valid = all(token.isidentifier() and token.isascii() for token in tokens)
    return "" if valid else "must be a ROS namespace: letters, digits and _ between slashes, such as robot1."


def _record(value: str) -> str:
    return f"exists already; name a new folder for {value!r}." if value and Path(value).exists() else ""


STRATEGIES = ("open_loop", "latest", "temporal_ensemble", "rtc")
POLICIES = ("local", "remote", "expert", "hold")
PROTOCOLS = ("policy", "session")
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")

# Arguments that every stack takes.
COMMON = (
    Argument(
        name="strategy",
        default="latest",
        choices=STRATEGIES,
        description="How chunks are joined: what is executed, and when the next one is entered.",
    ),
    Argument(
        name="policy",
        default="hold",
        choices=POLICIES,
        description="What computes the chunks: a model in this process, a policy server, the simulation's scripted "
        "expert, or nothing (hold: stay where it is).",
    ),
    Argument(
        name="config", default="", description="policy:=local: name of the training config; empty: the stack's own."
    ),
    Argument(
        name="checkpoint",
        default="",
        description="policy:=local: checkpoint folder or URL; empty: random weights. protocol:=session: its id; empty: "
        "the latest.",
    ),
    Argument(name="prompt", default="", description="Instruction for the policy; empty: the robot's default."),
    Argument(
        name="host",
        default="127.0.0.1",
        description="policy:=remote: the policy server's host, or wss://host; a key for it is $OPENPI_API_KEY.",
    ),
    Argument(name="port", default="8000", check=_port, description="policy:=remote: the policy server's port."),
    Argument(
        name="protocol",
        default="policy",
        choices=PROTOCOLS,
        description="policy:=remote: a policy server (openpi serve), or a session server (openpi serve-sessions).",
    ),
    Argument(
        name="controller",
        default="",
        description="Kind of controller that gets the commands; empty: the simulator's, or the one that the robot's "
        "description names.",
    ),
    Argument(
        name="dry_run",
        default="false",
        choices=BOOLEANS,
        description="Publish commands on shadow topics below dry_run/: nothing reaches a controller.",
    ),
    Argument(
        name="rviz",
        default="false",
        choices=BOOLEANS,
        description="Start rviz2 and robot_state_publisher, where they are installed.",
    ),
    Argument(
        name="namespace", default="", check=_namespace, description="Namespace that moves the whole robot; empty: none."
    ),
    Argument(
        name="use_sim_time",
        default="auto",
        choices=("auto", *BOOLEANS),
        description="Nodes follow /clock; auto: in simulation they do.",
    ),
    Argument(
        name="record",
        default="",
        check=_record,
        description="New folder for a bag of the run; empty: nothing recorded.",
    ),
    Argument(name="log_level", default="info", choices=LOG_LEVELS, description="What the nodes log."),
)


def _with_defaults(**defaults: str) -> tuple[Argument, ...]:
    return tuple(
        dataclasses.replace(argument, default=defaults.get(argument.name, argument.default)) for argument in COMMON
    )


def _filled(**parameters: Any) -> dict[str, Any]:
    """Without the empty ones: there the node's own default, or its parameter file, holds."""
    return {name: value for name, value in parameters.items() if value != ""}


def _policy_and_executor(controller: str, files: tuple[Path, ...], values: Values) -> list[Process]:
    policy = _filled(
        robot=values["robot"],
        backend=values["policy"],
        config=values["config"],
        checkpoint=values["checkpoint"],
        prompt=values["prompt"],
        host=values["host"],
        port=int(values["port"]),
        protocol=values["protocol"],
        strategy=values["strategy"],
    )
    executor = _filled(
        robot=values["robot"],
        strategy=values["strategy"],
        controller=values["controller"] or controller,
        simulated=values.get("sim", "true") == "true",
        dry_run=values["dry_run"] == "true",
    )
    return [
        Process(package="openpi_ros", executable="openpi_policy_node", parameters=policy, parameter_files=files),
        Process(package="openpi_ros", executable="chunk_executor_node", parameters=executor, parameter_files=files),
    ]


def _robot_description(robot: str) -> str:
    """The robot's URDF. Expanded by the nodes' interpreter: `ros2 launch` may run under one without our packages."""
    code = (
        "import sys; from openpi_runtime import kinematics, robots; "
        "print(kinematics.robot_description(robots.load_robot(sys.argv[1]).urdf_path))"
    )
    done = subprocess.run(["python3", "-c", code, robot], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise StackError(f"The description of robot '{robot}' cannot be shown in rviz: {reason}")
    return done.stdout


def _extras(layout: str, values: Values) -> list[Process]:
    processes = []
    if values["record"]:
        recorder = {"robot": values["robot"], "folder": str(Path(values["record"]).absolute())}
        processes.append(Process(package="openpi_ros", executable="bag_recorder_node", parameters=recorder))
    if values["rviz"] == "true":
        file = _share("rviz", f"{layout}.rviz")
        arguments = ("-d", str(file)) if file.is_file() else ()
        description = {"robot_description": _robot_description(values["robot"])}
        publisher = "robot_state_publisher"
        processes.append(Process(package=publisher, executable=publisher, parameters=description, optional=True))
        processes.append(Process(package="rviz2", executable="rviz2", arguments=arguments, optional=True))
    return processes


def _robot_stack(
    name: str, *, robot: str, simulator: str, description: str, real: str, policy: str, layout: str = ""
) -> Stack:
    """A robot, simulated or real, with a policy and an executor.

    Args:
        simulator: its node.
        real: what `sim:=false` commands, in a few words.
        policy: default of the argument `policy`.
        layout: whose parameter file and RViz layout it takes; empty: its own.
    """
    layout = layout or name

    def compose(values: Values) -> list[Process]:
        files = (_share("config", f"{layout}.yaml"),)
        if values["sim"] != "true":
            if values["policy"] == "expert":
                raise StackError("policy:=expert reads the simulator's objects, so it needs sim:=true; choose another.")
            return [*_policy_and_executor("", files, values), *_extras(layout, values)]
        world = Process(
            package="openpi_ros", executable=simulator, parameters={"robot": values["robot"]}, parameter_files=files
        )
        return [world, *_policy_and_executor("joint_trajectory", files, values), *_extras(layout, values)]

    return Stack(
        name=name,
        description=description,
        arguments=(
            Argument(
                name="sim",
                default="true",
                choices=BOOLEANS,
                description=f"Simulate the robot. false: command the real one through {real}.",
            ),
            Argument(
                name="robot", default=robot, description="Robot description: a name in config/robots or a YAML file."
            ),
            *_with_defaults(policy=policy),
        ),
        compose=compose,
    )


ALOHA = _robot_stack(
    "aloha",
    robot="aloha",
    simulator="aloha_sim_node",
    description="ALOHA, two ViperX 300s arms: simulated, or on the Interbotix drivers with sim:=false.",
    real="the Interbotix drivers",
    policy="expert",
)

_FRANKA = {"robot": "droid", "simulator": "franka_sim_node", "real": "franka_ros2 or ros2_control", "layout": "droid"}

DROID = _robot_stack(
    "droid",
    description="DROID, a Franka arm: simulated, or the real one with sim:=false; the policy on this machine.",
    policy="local",
    **_FRANKA,
)

DROID_REMOTE = _robot_stack(
    "droid_remote",
    description="DROID, a Franka arm: simulated, or the real one with sim:=false; the policy on a server.",
    policy="remote",
    **_FRANKA,
)


SUITES = ("spatial", "object", "goal", "10", "90")


def _whole_number(value: str) -> str:
    return "" if value.isdecimal() else "must be a whole number from 0."


def _libero(values: Values) -> list[Process]:
    files = (_share("config", "libero.yaml"),)
    by_expert = values["policy"] == "expert"
    unseen = by_expert and values["rviz"] != "true" and not values["record"]
    simulator = {
        "robot": values["robot"],
        "suite": values["suite"],
        "task": int(values["task"]),
        "trial": int(values["trial"]),
        "render": not unseen if values["render"] == "auto" else values["render"] == "true",
    }
    policy, executor = _policy_and_executor("forward", files, values)
    own: dict[str, Any] = {} if values["prompt"] else {"prompt_topic": "sim/instruction"}
    # Its eyes are the simulator's: it looks at every step.
    own |= {"request_interval": 1, "horizon": 10} if by_expert else {}
    return [
        Process(package="openpi_ros", executable="libero_sim_node", parameters=simulator, parameter_files=files),
        dataclasses.replace(policy, parameters={**policy.parameters, **own}),
        executor,
        *_extras("libero", values),
    ]


LIBERO = Stack(
    name="libero",
    description="A task of the LIBERO benchmark, simulated; needs `make setup-libero`.",
    arguments=(
        Argument(
            name="suite", default="spatial", choices=SUITES, description="Suite of tasks; the expert knows spatial."
        ),
        Argument(name="task", default="0", check=_whole_number, description="Task of the suite, from 0."),
        Argument(name="trial", default="0", check=_whole_number, description="Which of the task's initial states."),
        Argument(
            name="render",
            default="auto",
            choices=("auto", *BOOLEANS),
            description="Render the cameras; auto: unless the expert, which needs none, runs unseen and unrecorded.",
        ),
        Argument(
            name="robot", default="libero", description="Robot description: a name in config/robots or a YAML file."
        ),
        *_with_defaults(policy="expert", use_sim_time="true"),
    ),
    compose=_libero,
)


def _own_robot(values: Values) -> list[Process]:
    if values["policy"] == "expert":
        raise StackError("policy:=expert is for simulators; choose local, remote or hold.")
    return [*_policy_and_executor("", (), {**values, "sim": "false"}), *_extras("robot", values)]


ROBOT = Stack(
    name="robot",
    description="A robot of your own, the real one, by its description: docs/your-own-robot.md.",
    arguments=(
        Argument(
            name="robot",
            default="",
            check=lambda value: "" if value else "must name a robot description: robot:=FILE.yaml.",
            description="Robot description: a YAML file, or a name in config/robots.",
        ),
        *COMMON,
    ),
    compose=_own_robot,
)

STACKS = {stack.name: stack for stack in (ALOHA, DROID, DROID_REMOTE, LIBERO, ROBOT)}


def get_stack(name: str) -> Stack:
    """The stack of that name. Raises StackError if there is none."""
    if name not in STACKS:
        raise StackError(unknown_name("stack", name, list(STACKS), ""))
    return STACKS[name]
