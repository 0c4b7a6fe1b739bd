"""`openpi-up STACK [name:=value ...]`: starts a stack as local processes, for machines without `ros2 launch`.

Honcho runs the processes: their lines are prefixed with their names, one that ends stops all, Ctrl-C stops all, and
where openpi-up is killed they end too.
"""

import os
import shlex
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from honcho.manager import Manager

from openpi_bringup.stack import Process, Stack, StackError, Values
from openpi_bringup.stacks import STACKS, get_stack
from openpi_bringup.tied import TiedProcess

# Nodes undo what they set up within this time; what is left afterwards is killed.
_KILL_AFTER_S = 5.0
# Of the processes' parameter files, with this process's id behind it.
_FOLDER = "openpi-up-"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `openpi-up`; returns the exit code: that of the first process to end, 130 after Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    try:
        stack = get_stack(words[0])
        if {"-h", "--help", "-s", "--show-args"} & set(words[1:]):
            print(show_arguments(stack))
            return 0
        return start(stack, stack.resolve(parse_arguments(words[1:])))
    except StackError as error:
        print(f"openpi-up: {error}", file=sys.stderr)
        return 2


def usage() -> str:
    """How to call it, with the stacks there are."""
    lines = ["usage: openpi-up STACK [name:=value ...]", "       openpi-up STACK --show-args", "", "stacks:"]
    return "\n".join(lines + [f"  {stack.name:14} {stack.description}" for stack in STACKS.values()])


def show_arguments(stack: Stack) -> str:
    """The arguments of a stack, as `ros2 launch --show-args` lists them."""
    lines = [f"Arguments of {stack.name} (pass as name:=value):"]
    for argument in stack.arguments:
        choices = f" One of: {', '.join(argument.choices)}." if argument.choices else ""
        lines.append(f"  {argument.name}\n      {argument.description}{choices} (default: {argument.default!r})")
    return "\n".join(lines)


def parse_arguments(words: Sequence[str]) -> dict[str, str]:
    """Splits `name:=value` words. Raises StackError for anything else, and for a name given twice."""
    values: dict[str, str] = {}
    for word in words:
        name, separator, value = word.partition(":=")
        if not separator or not name:
            raise StackError(f"{word!r} is not an argument; write name:=value, for example sim:=true.")
        if name in values:
            raise StackError(f"Argument '{name}' is given twice.")
        values[name] = value
    return values


def start(stack: Stack, values: Values) -> int:
    """Runs the stack's processes until one ends or a signal comes; returns the exit code."""
    manager = StackManager()
    remove_leftovers(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=f"{_FOLDER}{os.getpid()}-") as folder:
        for process in stack.processes(values):
            if process.missing:
                print(f"openpi-up: {process.missing}", file=sys.stderr)
                continue
            command = command_line(process, values, Path(folder))
            manager.add_process(process.executable, "exec " + shlex.join(command), env=_environment(os.environ))
        manager.loop()
    return manager.returncode or 0


def remove_leftovers(parent: Path) -> None:
    """Removes the folders of those before that were killed, and could not."""
    for folder in parent.glob(f"{_FOLDER}*-*"):
        pid = folder.name.removeprefix(_FOLDER).partition("-")[0]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)


def command_line(process: Process, values: Values, folder: Path) -> list[str]:
    """The command of a process; its parameters go into a file in `folder`, so that no quoting can change them."""
    parameters = {"use_sim_time": values["use_sim_time"] == "true", **process.parameters}
    file = folder / f"{process.executable}.yaml"
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters}}))
    words = [*_executable(process), *process.arguments, "--ros-args", "--log-level", values["log_level"]]
    for path in (*process.parameter_files, file):
        words += ["--params-file", str(path)]
    for source, target in process.remaps.items():
        words += ["-r", f"{source}:={target}"]
    if values["namespace"].strip("/"):
        words += ["-r", f"__ns:=/{values['namespace'].strip('/')}"]
    return words


def _executable(process: Process) -> list[str]:
    if process.package == "openpi_ros":  # this interpreter: the workspace's scripts may name another
        return [sys.executable, "-m", f"openpi_ros.{process.executable}"]
    from ament_index_python.packages import get_package_prefix

    return [str(Path(get_package_prefix(process.package), "lib", process.package, process.executable))]


def _environment(base: Mapping[str, str]) -> dict[str, str]:
    return {**base, "PYTHONUNBUFFERED": "1", "RCUTILS_COLORIZED_OUTPUT": "0"}


class StackManager(Manager):
    """Honcho's manager, made safe for a signal at any moment, and for processes that do not heed it."""

    def __init__(self) -> None:
        super().__init__()
        self._owner = os.getpid()
        self._process_ctor = TiedProcess

    def loop(self) -> None:
        signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))  # the terminal was closed
        super().loop()

    def terminate(self) -> None:
        if os.getpid() != self._owner:  # a fork that has not yet become the process it is to run
            return
        if all("pid" in process for process in self._processes.values()):
            super().terminate()
            self._later(_KILL_AFTER_S, self.kill)
        else:  # still starting: there is nothing to send a signal to yet
            self._later(0.05, self.terminate)

    def _later(self, seconds: float, action: object) -> None:
        timer = threading.Timer(seconds, action)  # type: ignore[arg-type]
        timer.daemon = True
        timer.start()


if __name__ == "__main__":
    sys.exit(main())
