from __future__ import annotations

from dcm_ws.core.registry import ChannelRegistry


def test_members_are_indexed_both_ways() -> None:
    """
    Who joined a channel is among its members, and the channel among theirs.
    """
    registry: ChannelRegistry[str] = ChannelRegistry()
    registry.join("ann", "global")
    registry.join("bob", "global")
    registry.join("ann", "metrics")

    assert registry.members("global") == {"ann", "bob"}
    assert registry.members("metrics") == {"ann"}
    assert registry.channels("ann") == {"global", "metrics"}
    assert registry.channels("bob") == {"global"}
    assert len(registry) == 2


def test_joining_twice_changes_nothing() -> None:
    """
    A second subscription is the first one.
    """
    registry: ChannelRegistry[str] = ChannelRegistry()
    registry.join("ann", "global")
    registry.join("ann", "global")
    registry.leave("ann", "global")

    assert registry.members("global") == set()


def test_a_channel_is_gone_with_its_last_member() -> None:
    """
    A channel exists while somebody listens.
    """
    registry: ChannelRegistry[str] = ChannelRegistry()
    registry.join("ann", "topics/t")
    registry.join("bob", "topics/t")
    registry.leave("ann", "topics/t")
    assert dict(registry.sizes(10)) == {"topics/t": 1}
    registry.leave("bob", "topics/t")

    assert len(registry) == 0
    assert registry.channels("ann") == registry.channels("bob") == set()


def test_leaving_what_was_never_joined_changes_nothing() -> None:
    """
    Neither a stranger nor a member of another channel can leave this one.
    """
    registry: ChannelRegistry[str] = ChannelRegistry()
    registry.join("ann", "global")
    registry.leave("ann", "metrics")
    registry.leave("bob", "global")

    assert registry.members("global") == {"ann"}


def test_dropping_leaves_all_channels() -> None:
    """
    Dropping a member returns the channels that it was in; the others stay.
    """
    registry: ChannelRegistry[str] = ChannelRegistry()
    registry.join("ann", "global")
    registry.join("ann", "metrics")
    registry.join("bob", "global")

    assert registry.drop("ann") == {"global", "metrics"}
    assert registry.drop("ann") == set()
    assert dict(registry.sizes(10)) == {"global": 1}


def test_sizes_are_of_so_many_channels_at_most() -> None:
    """
    A listing of channels is bounded, however many there are.
    """
    registry: ChannelRegistry[int] = ChannelRegistry()
    for number in range(10):
        registry.join(number, f"topics/{number}")

    assert len(list(registry.sizes(3))) == 3
    assert len(list(registry.sizes(100))) == 10
