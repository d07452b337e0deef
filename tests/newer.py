"""
A node of a newer minor version, as a test plays it: it says more than this version knows, and of more things.

    python -m tests.newer -n --pidfile= dcm-ws --cluster ...

is C{twistd} of such a version.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

VERSION = "2.99.0"
MORE = {"new": [1, {"in": "1.99"}]}
TOPIC = "next"
"""
Only the newer version knows this topic.
"""


def more_of(topic: str, message: bytes) -> bytes:
    """
    A message as a newer version might send it.
    """
    if topic == "event":
        header, newline, data = message.partition(b"\n")
        return msgspec.json.encode([*msgspec.json.decode(header), MORE]) + newline + data
    if topic == "orphan":
        # only a name
        return message
    return msgspec.json.encode(_more(msgspec.json.decode(message), topic == "ack"))


def _more(value: Any, is_list: bool = False) -> Any:
    """
    A value with one more field at the end of each structure in it.

    @param is_list: it is a list of structures, and none itself.
    """
    if value is None:
        return None
    if isinstance(value, dict):
        if "state" in value and value["state"] is not None:
            value = {**value, "state": {**value["state"], **MORE}}
        return {**value, **MORE}
    if is_list:
        return [_more(one) for one in value]
    # the members of what nodes say of their connections
    return [*(_more(one, True) if isinstance(one, list) else one for one in value), MORE]


def main() -> None:
    """
    Run twistd.
    """
    import dcm_ws.version

    dcm_ws.version.VERSION = VERSION
    from twisted.scripts.twistd import run

    from dcm_ws.brokers.bus_base import BaseBus
    from dcm_ws.brokers.bus_parcels import ParcelKind

    post = BaseBus._post

    def post_more(bus: Any, target: str, kind: ParcelKind, topic: str, number: int, message: bytes) -> bool:
        if kind is ParcelKind.NO_ANSWER:
            return post(bus, target, kind, topic, number, message)
        post(bus, "", ParcelKind.MESSAGE, TOPIC, number, b"something else")
        if topic == "presence" and kind is ParcelKind.MESSAGE:
            post(bus, "", kind, topic, number, msgspec.json.encode(["new", 1 << 30, [["c", "a", None]]]))
        return post(bus, target, kind, topic, number, more_of(topic, message))

    BaseBus._post = post_more  # type: ignore[assignment]
    run()


if __name__ == "__main__":
    sys.argv[0] = "twistd"
    main()
