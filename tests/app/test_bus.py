"""
The settings of the bus between nodes, and the bus that is made of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import succeed
from twisted.internet.task import Clock

from dcm_ws.app.bus import credentials, make_bus
from dcm_ws.app.settings import Settings, SettingsError
from dcm_ws.brokers.bus_nats import NatsBus
from dcm_ws.brokers.bus_postgres import PostgresBus
from dcm_ws.core.counts import Counts
from dcm_ws.postgres.connection import Place
from tests.app.test_settings import chosen
from tests.integration.nats_servers import with_nkey, with_operator


def made(settings: Settings) -> Any:
    clock = Clock()
    return make_bus(settings, clock, lambda: succeed(Place("")), Counts(), clock.seconds)


def test_engines() -> None:
    """
    PostgreSQL carries messages between nodes, or NATS if there is a URL.
    """
    assert isinstance(made(chosen()), PostgresBus)
    bus = made(chosen("--nats", "nats://one,nats://two", "--nats", "tls://three"))
    assert isinstance(bus, NatsBus)
    assert (bus.report()["engine"], bus.report()["state"], bus.report()["node"]) == ("nats", "connecting", "")
    bus.join("7", "cluster")
    assert bus.report()["node"] == "7"


def test_nats_is_for_clusters() -> None:
    """
    A URL of NATS makes the service a node of a cluster; an application that embeds it says both.
    """
    assert chosen("--nats", "nats://one").cluster
    assert not chosen().cluster
    with pytest.raises(SettingsError, match="--nats is for the nodes of a cluster"):
        Settings(nats=("nats://one",), database="postgresql://db/1")
    assert Settings(nats=("nats://one",), cluster=True, database="postgresql://db/1").nats


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--nats", "http://ann:s3cret@one"], "--nats: a URL of NATS begins with nats:// or tls://"),
        (["--nats", "nats://ann:s3cret@one/x"], "--nats: the URL of the NATS server one has something after the port"),
        (["--nats-creds", "a", "--nats-nkey", "b"], "--nats-creds and --nats-nkey exclude each other"),
        (["--nats-prefix", "a..b"], "--nats-prefix must be letters"),
        (["--nats-prefix", "a.*"], "--nats-prefix must be letters"),
        (["--max-bus-waiting", "0"], "--max-bus-waiting must be 1 or more"),
    ],
)
def test_wrong_settings(arguments: list[str], reason: str) -> None:
    """
    Settings that cannot be right are refused, and no password is shown.
    """
    with pytest.raises(SettingsError, match=reason) as raised:
        chosen(*arguments)
    assert "s3cret" not in str(raised.value)


def test_credentials(tmp_path: Path) -> None:
    """
    The files of a user are read again each time, so that a new key is used for the next connection.
    """
    assert (credentials(chosen()).key, credentials(chosen()).jwt) == (None, "")
    _, file = with_nkey(tmp_path)
    settings = chosen("--nats-nkey", str(file))
    before = credentials(settings)
    with_nkey(tmp_path)
    after = credentials(settings)
    assert before.key is not None and after.key is not None
    assert before.key.public != after.key.public
    _, file = with_operator(tmp_path)
    assert credentials(chosen("--nats-creds", str(file))).jwt.count(".") == 2


@pytest.mark.parametrize("option", ["--nats-creds", "--nats-nkey", "--nats-ca"])
def test_files_that_are_no_good(option: str, tmp_path: Path) -> None:
    """
    A file that is missing, or has something else in it, is told at the start, with its option.
    """
    (tmp_path / "file").write_text("hello")
    for name in ("file", "missing"):
        settings = chosen("--nats", "nats://one", option, str(tmp_path / name))
        with pytest.raises(SettingsError, match=f"{option}: "):
            made(settings)


def test_secrets_are_not_shown() -> None:
    """
    The representation of the settings does not have the URLs, which may have passwords.
    """
    assert "s3cret" not in repr(chosen("--nats", "nats://ann:s3cret@one"))
