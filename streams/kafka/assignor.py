"""Who reads what: partition p of every topic to one worker, and as few moves as possible.

Kafka's group protocol lets the members bring their own assignor; the member that leads the group runs `assign` over
what all members said in their metadata. Ours is sticky: each member says which partition numbers it had and in which
round, keeps as many of them as its fair share allows, and only the rest moves. aiokafka tells an assignor no
generation, so rounds are counted in the metadata themselves: a member that slept over a rebalance comes back with an
old round and loses against those who were there.

The name `skutrend-co` is part of the group's protocol: a running group does not take members with another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aiokafka.cluster import ClusterMetadata

VERSION: Final = 1


class Claim(msgspec.Struct, frozen=True):
    """What a member says it owned, and in which round; travels as JSON in the group protocol's user data."""

    owned: list[int] = []
    round: Annotated[int, msgspec.Meta(ge=-1, le=2**53)] = -1


def read_claim(user_data: bytes | None) -> Claim:
    """Read a member's claim; bytes that are none of ours claim nothing."""
    try:
        return msgspec.json.decode(user_data or b"{}", type=Claim)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Claim()


def share(numbers: Iterable[int], claims: Mapping[str, Claim]) -> dict[str, list[int]]:
    """Give every partition number to exactly one member, shares differing by at most one.

    numbers: the partition numbers in use. claims: at least one member -> what it says it had.
    Newer rounds are served first, then larger holdings, then the member id, so that every member that computes this
    gets the same answer. Numbers nobody may keep go to whoever has least. Each list is ascending.

    >>> share(range(4), {"a": Claim([0, 1, 2, 3], 7), "b": Claim()})
    {'a': [0, 1], 'b': [2, 3]}
    """
    free = set(numbers)
    members = sorted(claims)
    low, larger = divmod(len(free), len(members))  # `larger` members may hold low + 1
    kept: dict[str, list[int]] = {member: [] for member in members}
    for member in sorted(members, key=lambda m: (-claims[m].round, -len(claims[m].owned), m)):
        for number in sorted(free.intersection(claims[member].owned)):
            if len(kept[member]) == low:
                if larger == 0:
                    break
                larger -= 1
            elif len(kept[member]) > low:
                break
            kept[member].append(number)
            free.discard(number)
    for number in sorted(free):
        kept[min(members, key=lambda m: (len(kept[m]), m))].append(number)
    return {member: sorted(held) for member, held in kept.items()}


class CoAssignor(AbstractPartitionAssignor):  # type: ignore[misc]  # aiokafka has no types
    """aiokafka's assignor interface over `share`; one instance per consumer, since it remembers what it holds."""

    name = "skutrend-co"

    def __init__(self) -> None:
        """Claim nothing yet."""
        self.claim = Claim()

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """Return what this member says of itself when it joins."""
        return ConsumerProtocolMemberMetadata(VERSION, sorted(topics), msgspec.json.encode(self.claim))

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Remember what the group gave us, and in which round."""
        numbers = {number for _, partitions in assignment.assignment for number in partitions}
        self.claim = Claim(owned=sorted(numbers), round=read_claim(assignment.user_data).round)

    def assign(
        self, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Compute the assignment of the whole group; runs in the group's leader only."""
        topics = sorted({topic for member in members.values() for topic in member.subscription})
        partitions = {topic: set(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        claims = {name: read_claim(member.user_data) for name, member in members.items()}
        held = share(set().union(*partitions.values()), claims)
        this_round = msgspec.json.encode(Claim(round=1 + max(claim.round for claim in claims.values())))
        return {
            name: ConsumerProtocolMemberAssignment(
                VERSION,
                [(topic, sorted(partitions[topic].intersection(held[name]))) for topic in sorted(member.subscription)],
                this_round,
            )
            for name, member in members.items()
        }
