"""
Makes the bus between nodes that the settings ask for.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from dcm_ws.app.options import BY_FIELD
from dcm_ws.app.settings import Settings, SettingsError
from dcm_ws.brokers.bus_nats import NatsBus
from dcm_ws.brokers.bus_postgres import PostgresBus
from dcm_ws.core.counts import Counts
from dcm_ws.nats.connection import Credentials
from dcm_ws.nats.nkeys import NatsKeyError, read_creds, read_nkey
from dcm_ws.nats.tls import NatsCertificateError, tls_options
from dcm_ws.nats.urls import read_urls
from dcm_ws.postgres.connection import Address


def make_bus(
    settings: Settings, reactor: Any, address: Address, counts: Counts, now: Callable[[], float]
) -> NatsBus | PostgresBus:
    """
    Make the bus: over NATS if there is a URL of NATS, otherwise over PostgreSQL.  It is a service, which its user
    starts.

    @param address: returns where the database is.
    @param now: monotonic seconds.
    @raise SettingsError: a file that the settings name cannot be used.
    """
    if not settings.nats:
        return PostgresBus(
            reactor,
            address,
            counts=counts,
            now=now,
            random=random.random,
            max_message=settings.max_message_size,
            max_waiting=settings.max_bus_waiting,
        )
    _try("nats_creds" if settings.nats_creds else "nats_nkey", lambda: credentials(settings))
    tls: Callable[[str], Any] = _try("nats_ca", lambda: tls_options(settings.nats_ca))
    return NatsBus(
        reactor,
        read_urls(settings.nats),
        prefix=settings.nats_prefix,
        credentials=lambda: credentials(settings),
        tls=tls,
        counts=counts,
        now=now,
        random=random.random,
        max_message=settings.max_message_size,
        max_waiting=settings.max_bus_waiting,
    )


def credentials(settings: Settings) -> Credentials:
    """
    Read what is shown to NATS servers, in addition to what is in their URLs.

    @raise NatsKeyError: a file has no key.
    @raise OSError: a file cannot be read.
    """
    if settings.nats_creds is not None:
        jwt, key = read_creds(settings.nats_creds)
        return Credentials(key, jwt)
    return Credentials() if settings.nats_nkey is None else Credentials(read_nkey(settings.nats_nkey))


def _try(field: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (NatsKeyError, NatsCertificateError, OSError) as error:
        raise SettingsError(f"{BY_FIELD[field].label}: {error}") from None
