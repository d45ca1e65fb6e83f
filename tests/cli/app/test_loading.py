"""-A: which App is meant, and what is said when there is none."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from streamer.cli.app.loading import NoSuchApp, load_app
from streamer.cli.main import main

_numbers = itertools.count(1)
ONE = "import streamer\napp = streamer.App('one')\n"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Write a module of a name that no other test has; its name."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        name = f"loaded_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def test_the_only_app_of_a_module_needs_no_name(
    module: Callable[[str], str], tmp_path: Path
) -> None:
    shop = module("import streamer\nshop = streamer.App('one')\nsame = shop")

    assert load_app(shop, tmp_path).id == "one"


def test_of_several_it_is_the_one_called_app(
    module: Callable[[str], str], tmp_path: Path
) -> None:
    shop = module(ONE + "other = streamer.App('two')")

    assert load_app(shop, tmp_path).id == "one"
    assert load_app(f"{shop}:other", tmp_path).id == "two"


def test_of_several_without_that_name_one_must_be_named(
    module: Callable[[str], str], tmp_path: Path
) -> None:
    shop = module("import streamer\na = streamer.App('a')\nb = streamer.App('b')")

    with pytest.raises(NoSuchApp, match=rf"(?s)several Apps.*a, b.*-A {shop}:a"):
        load_app(shop, tmp_path)


def test_a_file_is_its_module(module: Callable[[str], str], tmp_path: Path) -> None:
    shop = module(ONE)

    assert load_app(f"{shop}.py", tmp_path) is sys.modules[shop].app
    with pytest.raises(NoSuchApp, match="There is no file"):
        load_app("nothing.py", tmp_path)


def test_a_package_has_it_in_its_module_app(
    module: Callable[[str], str], tmp_path: Path
) -> None:
    package = tmp_path / f"package_{next(_numbers)}"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "app.py").write_text(ONE)

    assert load_app(package.name, tmp_path).id == "one"
    assert load_app(f"{package.name}.app:app", tmp_path).id == "one"


def test_a_module_that_is_not_there_is_guessed(
    module: Callable[[str], str], tmp_path: Path
) -> None:
    shop = module(ONE)

    with pytest.raises(NoSuchApp, match=f"Did you mean -A {shop}"):
        load_app(shop[:-2] + shop[-1], tmp_path)
    with pytest.raises(NoSuchApp, match=r"Go to the folder"):
        load_app("nowhere.near", tmp_path)


def test_a_module_without_an_app_is_told_how_to_make_one(
    module: Callable[[str], str], tmp_path: Path
) -> None:
    empty = module("x = 1")

    with pytest.raises(NoSuchApp, match=rf"app = streamer\.App\('{empty}'\)"):
        load_app(empty, tmp_path)
    with pytest.raises(NoSuchApp, match=rf"{empty}:x is no App"):
        load_app(f"{empty}:x", tmp_path)
    with pytest.raises(NoSuchApp, match=rf"There is no 'y' in {empty}"):
        load_app(f"{empty}:y", tmp_path)


@pytest.mark.parametrize("line", ["import not_to_be_found", "1 / 0", "def broken(:"])
def test_a_module_that_cannot_be_imported_shows_where(
    module: Callable[[str], str], tmp_path: Path, line: str
) -> None:
    shop = module(f"import streamer\n{line}\n")

    with pytest.raises(NoSuchApp) as caught:
        load_app(shop, tmp_path)

    assert f"{shop} cannot be imported" in caught.value.problem
    assert f'{shop}.py", line 2' in caught.value.problem
    assert "loading.py" not in caught.value.problem


def test_a_main_that_is_not_guarded_is_found_out(
    module: Callable[[str], str], tmp_path: Path
) -> None:
    shop = module(ONE + "app.main()")

    with pytest.raises(NoSuchApp, match="if __name__ == "):
        load_app(shop, tmp_path)


# On the command line.


def test_without_an_app_a_command_says_what_is_missing() -> None:
    result = CliRunner(env={"STREAMER_APP": ""}).invoke(main, ["agents"])

    assert result.exit_code == 1
    assert "`streamer agents` is a command of an app" in result.stderr
    assert "streamer -A shop agents" in result.stderr


def test_the_app_may_be_named_before_after_or_in_the_environment(
    module: Callable[[str], str],
) -> None:
    shop = module(ONE + "@app.agent('t', name='reader')\nasync def f(s): ...")
    by_environment = CliRunner(env={"STREAMER_APP": shop})

    for runner, words in (
        (CliRunner(), ["-A", shop, "agents"]),
        (CliRunner(), ["agents", "-A", shop]),
        (by_environment, ["agents"]),
    ):
        result = runner.invoke(main, words)
        assert "reader" in result.stdout, result.stderr


def test_help_shows_the_commands_that_an_app_declares(
    module: Callable[[str], str],
) -> None:
    shop = module(ONE + "@app.command()\nasync def fill():\n    'Fill the shelves.'")

    for environment, words in (({}, ["-A", shop]), ({"STREAMER_APP": shop}, [])):
        result = CliRunner(env=environment).invoke(main, [*words, "--help"])
        assert result.exit_code == 0
        assert "fill  Fill the shelves." in result.output
        assert "Commands of an app" in result.output


def test_help_stands_when_the_app_cannot_be_loaded() -> None:
    result = CliRunner().invoke(main, ["-A", "nowhere_at_all", "--help"])

    assert result.exit_code == 0
    assert "There is no module 'nowhere_at_all'" in result.stderr
    assert "worker" in result.stdout


def test_a_command_of_a_name_that_is_taken_is_refused(
    module: Callable[[str], str],
) -> None:
    shop = module(ONE + "@app.command()\nasync def topic(): ...")

    result = CliRunner().invoke(main, ["-A", shop, "anything"])

    assert result.exit_code == 1
    assert "There is a command 'topic' already" in result.stderr
