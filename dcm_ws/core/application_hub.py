"""
The hub as an application sees it that embeds the service.
"""

from __future__ import annotations

from functools import partial
from itertools import islice

from dcm_ws.core.dead_letters import DeadLetters, Listed, listed
from dcm_ws.core.keys import PublishKeys
from dcm_ws.core.redriving import Redriven, Redriving
from dcm_ws.core.router import SERVICE, Router
from dcm_ws.protocol.channels import Channel


class ApplicationHub:
    """
    Publishes what an application wants to be published, and does with dead letters what it wants to be done.
    """

    def __init__(self, *, router: Router, keys: PublishKeys, letters: DeadLetters, redriving: Redriving) -> None:
        self._router = router
        self._keys = keys
        self._letters = letters
        self._redriving = redriving

    def announce(self, channel: Channel, event: str, data: object) -> str:
        """
        Publish an event of the service's own; return its id.
        """
        return self._router.announce(channel, event, data, everywhere=True)

    def publish(self, channel: Channel, event: str, data: bytes, sender: bytes = b"", key: str = "") -> str:
        """
        Publish an event as a client would; return its id.

        @param data: JSON, UTF-8.
        @param sender: as in L{Router.publish}.
        @param key: if it was used within the last 10 minutes, nothing is published, and the id is that of the event
            that was published then.  Empty for none.  If only the log knows of the key, which answers later, nothing is
            published either, and the id is a new one that never arrives.
        """
        if not key:
            return self._router.publish(channel, event, data, sender).id
        publish = partial(self._router.publish, channel, event, data, sender, None)
        return self._keys.once(SERVICE, key, publish).id

    def dead_letters(
        self, agent: str | None = None, since: int | None = None, until: int | None = None, most: int = 100
    ) -> list[Listed]:
        """
        List dead letters, in the order of dying.

        @param agent: whose; None for those of all agents.
        @param since: died at this time or later, in ms since the epoch; None for any time.
        @param until: died before this time; None for any time.
        @param most: dead letters, at most.
        """
        return [listed(letter) for letter in islice(self._letters.find(agent, since, until), most)]

    def redrive(
        self, agent: str | None = None, since: int | None = None, until: int | None = None, most: int = 100
    ) -> Redriven:
        """
        Send events that became dead letters again, each to its agent only and with the same id.

        @param agent: this and the other parameters are as in L{dead_letters}, without what was redriven already.
        """
        return self._redriving.redrive(agent, since, until, most)

    def purge(
        self, agent: str | None = None, since: int | None = None, until: int | None = None, most: int = 100
    ) -> int:
        """
        Forget dead letters; return how many there were.  What was redriven, and is in flight, is not affected.

        @param agent: this and the other parameters are as in L{dead_letters}.
        """
        return self._redriving.purge(agent, since, until, most)
