"""Settings: where a value comes from, and what is said when it is wrong."""

from pathlib import Path

import pytest

from streamer.errors import SettingsError
from streamer.settings import (
    Kind,
    Option,
    check_environment,
    read_toml,
    resolve,
    setting,
)

AGE = Option("log.retention.ms", Kind.LONG, "1000", "How old it may grow.", minimum=-1)
POLICY = Option(
    "cleanup.policy", Kind.LIST, "delete", "What goes.", choices=("delete", "compact")
)
OPTIONS = {option.name: option for option in (AGE, POLICY)}


def resolved(
    flags: dict[str, str] | None = None,
    environment: dict[str, str] | None = None,
    file: dict[str, tuple[str, str]] | None = None,
) -> tuple[object, str]:
    found = resolve(
        OPTIONS, flags=flags or {}, environment=environment or {}, file=file or {}
    )[AGE.name]
    return found.value, found.origin


def test_the_strongest_place_counts() -> None:
    flags = {"log.retention.ms": "1"}
    environment = {"STREAMER_LOG_RETENTION_MS": "2"}
    file = {"log.retention.ms": ("3", "streamer.toml")}

    assert resolved(flags, environment, file) == (1, "flag")
    assert resolved({}, environment, file) == (2, "environment STREAMER_LOG_RETENTION_MS")
    assert resolved({}, {}, file) == (3, "streamer.toml")
    assert resolved() == (1000, "default")


def test_an_unknown_name_is_refused_with_the_nearest_right_one() -> None:
    with pytest.raises(SettingsError, match=r"Did you mean 'log\.retention\.ms'"):
        resolved(flags={"log.retension.ms": "1"})
    with pytest.raises(SettingsError, match=r"Did you mean 'log\.retention\.ms'"):
        resolved(file={"log.retention.sm": ("1", "streamer.toml")})


def test_a_variable_that_nobody_reads_is_refused() -> None:
    known = OPTIONS.values()

    check_environment({"STREAMER_BROKER": "x", "HOME": "/"}, known, ["STREAMER_BROKER"])
    with pytest.raises(SettingsError, match="Did you mean 'STREAMER_LOG_RETENTION_MS'"):
        check_environment({"STREAMER_LOG_RETENTIONMS": "1"}, known, [])


@pytest.mark.parametrize(
    ("option", "text", "problem"),
    [
        (AGE, "soon", "must be a whole number"),
        (AGE, "-2", "must be at least -1"),
        (AGE, str(2**63), "must be at most"),
        (POLICY, "delete,burn", "must be delete or compact, not 'burn'"),
    ],
)
def test_a_bad_value_is_refused_and_the_option_explained(
    option: Option, text: str, problem: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        setting(option, text, "flag")

    assert problem in caught.value.problem
    assert option.doc in caught.value.remedy


@pytest.mark.parametrize(
    "text",
    [
        '[broker]\n"log.retention.ms" = 5\n"cleanup.policy" = ["delete", "compact"]',
        '[broker]\nlog.retention.ms = 5\ncleanup.policy = "delete,compact"',
    ],
)
def test_the_nearest_file_upward_is_read_with_dotted_or_quoted_names(
    tmp_path: Path, text: str
) -> None:
    file = tmp_path / "streamer.toml"
    file.write_text(text)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)

    assert read_toml(below, "broker") == {
        "log.retention.ms": ("5", str(file)),
        "cleanup.policy": ("delete,compact", str(file)),
    }


def test_pyproject_serves_where_there_is_no_file_of_our_own(tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text("[tool.streamer.broker]\n'num.partitions' = 8\n'auto' = true")

    assert read_toml(tmp_path, "broker") == {
        "num.partitions": ("8", str(file)),
        "auto": ("true", str(file)),
    }


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "streamer.toml").write_text("broker = [")

    with pytest.raises(SettingsError, match=r"streamer\.toml is not valid TOML"):
        read_toml(tmp_path, "broker")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Kind.INT, "1_000"),
        (Kind.INT, "٣"),
        (Kind.INT, "-2147483649"),
        (Kind.LONG, "9223372036854775808"),
        (Kind.DOUBLE, "nan"),
        (Kind.DOUBLE, "inf"),
        (Kind.DOUBLE, "1_0.5"),
    ],
)
def test_a_number_is_what_clients_take_for_one(kind: Kind, text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        Option("n", kind, "0", "A number.").parse(text)


def test_numbers_may_be_written_as_others_write_them() -> None:
    assert Option("n", Kind.INT, "0", "A number.").parse("+5") == 5
    assert Option("n", Kind.DOUBLE, "0", "A number.").parse(".5") == 0.5
    assert Option("n", Kind.DOUBLE, "0", "A number.").parse("1e-3") == 0.001


def test_a_limit_is_told_to_the_last_digit() -> None:
    with pytest.raises(ValueError, match="at least 1048576"):
        Option("n", Kind.INT, "0", "A number.", minimum=1_048_576).parse("1")


def test_one_value_in_place_of_a_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "streamer.toml").write_text("broker = 5\n")

    with pytest.raises(SettingsError, match="not a table"):
        read_toml(tmp_path, "broker")
