import pathlib
import subprocess
import sys
import types

import pytest

from openpi.cli import main as cli


@pytest.fixture
def fake_commands(tmp_path, monkeypatch):
    """Two commands in a throw-away package, in place of the real table."""
    package = tmp_path / "fake_openpi_commands"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "greet.py").write_text(
        '"""Greets somebody."""\n'
        "import dataclasses\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Args:\n"
        "    name: str\n"
        "    status: int = 0\n"
        "def main(args: Args) -> int:\n"
        "    if args.name == 'nobody':\n"
        "        raise ValueError('Nobody cannot be greeted.')\n"
        "    print('hello', args.name)\n"
        "    return args.status\n"
    )
    (package / "echo.py").write_text(
        '"""Repeats its arguments."""\ndef parse(argv): return argv\ndef main(args): print(*args); return 0\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    table = {"greet": "fake_openpi_commands.greet", "bench echo": "fake_openpi_commands.echo", "gone": "no.such.module"}
    monkeypatch.setattr(cli, "COMMANDS", table)
    monkeypatch.setattr(cli.importlib.metadata, "entry_points", lambda group: [])


@pytest.mark.usefixtures("fake_commands")
def test_runs_command_and_returns_its_status(capsys):
    assert cli.dispatch(["greet", "--name", "you", "--status", "3"]) == 3
    assert capsys.readouterr().out == "hello you\n"


@pytest.mark.usefixtures("fake_commands")
def test_nested_command_with_its_own_parser(capsys):
    assert cli.dispatch(["bench", "echo", "a", "--b"]) == 0
    assert capsys.readouterr().out == "a --b\n"


@pytest.mark.usefixtures("fake_commands")
def test_error_becomes_a_sentence(capsys, monkeypatch):
    monkeypatch.delenv("OPENPI_TRACEBACK", raising=False)
    assert cli.dispatch(["greet", "--name", "nobody"]) == 1
    assert "Nobody cannot be greeted." in capsys.readouterr().err
    monkeypatch.setenv("OPENPI_TRACEBACK", "1")
    with pytest.raises(ValueError, match="Nobody"):
        cli.dispatch(["greet", "--name", "nobody"])


@pytest.mark.usefixtures("fake_commands")
@pytest.mark.parametrize(
    ("argv", "nearest"),
    [(["gret"], "openpi greet"), (["bench", "ecko"], "openpi bench echo"), (["benhc"], "openpi bench")],
)
def test_typo_names_nearest_command(argv, nearest, capsys):
    assert cli.dispatch(argv) == 2
    assert f"Did you mean `{nearest}`" in capsys.readouterr().err


@pytest.mark.usefixtures("fake_commands")
def test_help_lists_what_is_there(capsys):
    assert cli.dispatch(["--help"]) == 0
    text = capsys.readouterr().out
    assert "greet       Greets somebody." in text
    assert "gone" not in text
    assert cli.dispatch(["bench", "--help"]) == 0
    text = capsys.readouterr().out
    assert "bench echo" in text
    assert "greet" not in text


@pytest.mark.usefixtures("fake_commands")
def test_no_command_shows_help_and_fails(capsys):
    assert cli.dispatch([]) == 2
    assert "usage: openpi COMMAND" in capsys.readouterr().out


@pytest.mark.usefixtures("fake_commands")
def test_entry_points_add_commands(capsys, monkeypatch):
    point = types.SimpleNamespace(name="bench.more", module="fake_openpi_commands.echo")
    monkeypatch.setattr(cli.importlib.metadata, "entry_points", lambda group: [point])
    assert cli.dispatch(["bench", "more", "x"]) == 0
    assert capsys.readouterr().out == "x\n"


def test_help_needs_no_jax():
    code = "import sys; from openpi.cli.main import dispatch; dispatch(['--help']); print('jax' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "False"


def test_every_module_in_the_table_is_a_command():
    for name, module in cli.available_commands().items():
        source = cli._source_of(module)
        assert source is not None
        text = pathlib.Path(source).read_text(encoding="utf-8")
        assert "def main(" in text, f"{name}: {module} has no main"
        assert "class Args" in text or "def parse(" in text or "Args =" in text, f"{name}: {module} has no Args"
        assert cli._summary(module), f"{name}: {module} has no docstring for the help"
