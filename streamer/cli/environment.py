"""STREAMER_ variables: apps and brokers share an environment, each with names of its own.

A name that neither knows was meant to change something: it is refused, with the name that
was probably meant. What is a setting of the one only is none of the other's business.

Settings of apps are imported where they are needed: a broker must start fast.
"""

from collections.abc import Mapping

from streamer.broker.config import BROKER_OPTIONS, OTHER_VARIABLES
from streamer.settings import check_environment


def for_broker(environment: Mapping[str, str]) -> dict[str, str]:
    """Without what only an app means by it."""
    brokers = {option.environment_name for option in BROKER_OPTIONS.values()}
    found = {
        name: text
        for name, text in environment.items()
        if name.startswith("STREAMER_")
        and name not in OTHER_VARIABLES
        and not _is_the_apps(name, text)
    }
    if found.keys() <= brokers:
        return found
    from streamer.conf import OPTIONS

    apps = {option.environment_name for option in OPTIONS.values()} - brokers
    return {name: text for name, text in found.items() if name not in apps}


def _is_the_apps(name: str, text: str) -> bool:
    """A name that both have, with a word that only an app understands."""
    return name == "STREAMER_COMPRESSION_TYPE" and text == "none"


def check_for_app(environment: Mapping[str, str]) -> None:
    """Refuse a name that is a setting of neither."""
    from streamer.conf import OPTIONS

    options = [*OPTIONS.values(), *BROKER_OPTIONS.values()]
    check_environment(environment, options, OTHER_VARIABLES)
