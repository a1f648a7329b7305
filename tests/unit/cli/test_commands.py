"""Every command: help with an example that parses, wrong usage, and an entry that stays light."""

import shlex
import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from runstream import _cli
from runstream._commands.lazy import Entry

runner = CliRunner()


def commands(command: Any = None, path=()):
    """Yield (path, command) for every command that does something."""
    command = command or typer.main.get_command(_cli.app)
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name in command.list_commands(None):
        yield from commands(command.commands[name], (*path, name))


ALL = dict(commands())
IDS = [" ".join(path) for path in ALL]


def example_of(command) -> str:
    return (command.epilog or "").partition("Example:")[2].strip()


@pytest.mark.parametrize("path", ALL, ids=IDS)
def test_help_begins_with_one_line_and_ends_with_an_example(path):
    answer = runner.invoke(_cli.app, [*path, "--help"])
    assert answer.exit_code == 0, answer.output
    first, *_ = (ALL[path].help or "").strip().split("\n\n")
    assert first, "no help"
    assert first[0].isupper()
    assert len(first.splitlines()) == 1
    assert first.endswith(".")
    assert "Example:" in answer.output


@pytest.mark.parametrize("path", ALL, ids=IDS)
def test_the_example_is_of_this_command_and_parses(path):
    words = shlex.split(example_of(ALL[path]))
    assert words[: len(path) + 1] == ["runstream", *(("server",) if path == ("ui",) else path)]
    assert "\n" not in example_of(ALL[path])
    context = ALL[path].make_context(path[-1], words[len(path) + 1 :])
    assert context.params


@pytest.mark.parametrize("path", ALL, ids=IDS)
def test_every_option_says_what_it_means(path):
    for parameter in ALL[path].params:
        assert getattr(parameter, "help", None), f"{parameter.name} has no help"


@pytest.mark.parametrize("path", ALL, ids=IDS)
def test_wrong_usage_ends_with_2_and_says_so_on_stderr(path):
    answer = runner.invoke(_cli.app, [*path, "--no-such-option"])
    assert answer.exit_code == 2
    assert "no-such-option" in answer.stderr
    assert answer.stdout == ""


@pytest.mark.parametrize("arguments", [["no-such-command"], ["runs", "no-such"], ["runs", "get"], ["runs"]])
def test_usage_errors_end_with_2(arguments):
    assert runner.invoke(_cli.app, arguments).exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["experiments", "get"],
        ["experiments", "get", "-x", "0", "-n", "Default"],
        ["experiments", "get", "-x", "0", "--output", "xml"],
        ["runs", "create", "-x", "0", "--tag", "no-equals-sign"],
        ["runs", "create", "-x", "0", "--tag", "a=1", "--tag", "a=2"],
        ["runs", "list", "-x", "0", "--max-results", "0"],
        ["runs", "list", "-x", "0", "--view", "some"],
        ["runs", "end", "-r", "0" * 32, "--status", "RUNNING"],
        ["metrics", "history", "-r", "0" * 32, "-k", "loss", "--json", "--csv"],
        ["metrics", "series", "-r", "0" * 32, "-k", "loss", "--x", "wall"],
        ["artifacts", "download"],
        ["artifacts", "download", "-r", "0" * 32, "-u", "runs:/x"],
        ["artifacts", "download", "-u", "runs:/x", "-a", "model"],
        ["models", "tag", "-n", "m", "--key", "k"],
        ["models", "tag", "-n", "m", "--key", "k", "--value", "v", "--remove"],
    ],
    ids=" ".join,
)
def test_arguments_that_do_not_fit_each_other_are_usage_errors(arguments):
    answer = runner.invoke(_cli.app, [*arguments, "--tracking-uri", "grpc://127.0.0.1:1"])
    assert answer.exit_code == 2, answer.output


def test_the_table_of_commands_says_what_the_commands_say():
    for name, entry in _cli.COMMANDS.items():
        if name != "ui":
            assert entry.load(name).help.strip().splitlines()[0] == entry.help


def test_a_command_of_the_server_says_what_to_install_without_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "runstream_server.cli.server", None)
    answer = runner.invoke(_cli.app, ["server", "--port", "5000"])
    assert answer.exit_code == 1
    assert "pip install 'runstream[server]'" in answer.stderr


def test_a_bug_in_a_light_command_is_not_hidden_as_a_missing_extra():
    with pytest.raises(ModuleNotFoundError):
        Entry("runstream._commands.no_such_module:app", "").load("x")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["runs", "--help"]], ids=" ".join)
def test_help_loads_nothing_heavy(arguments):
    script = (
        "import sys; from runstream._cli import app; app(prog_name='runstream', standalone_mode=False); "
        "print([n for n in ('grpc', 'google.protobuf', 'numpy', 'rich', 'sqlalchemy') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_package_can_be_run():
    done = subprocess.run(
        [sys.executable, "-m", "runstream", "--version"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert done.stdout.startswith("runstream ")
