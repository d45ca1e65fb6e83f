"""The settings of librdkafka that are ours."""

from __future__ import annotations

import pytest

from streamer.client.librdkafka import settings_for


@pytest.mark.parametrize("who", ["consumer", "producer", "admin"])
def test_who_loses_its_last_broker_keeps_looking_for_it(who: str) -> None:
    """Or a transaction may wait for ever (librdkafka issues 5456 and 5511)."""
    assert settings_for(who, "b:1", {})["metadata.recovery.strategy"] == "none"
