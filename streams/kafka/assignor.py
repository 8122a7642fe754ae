"""The group's assignor: partition p of every topic to one worker, and as few moves as possible.

Kafka's group protocol lets the members provide their own assignor; the member that leads the group runs `assign` over
what all members said in their metadata. Ours is sticky: each member says which partition numbers it had and in which
round, keeps as many of them as its fair share allows, and only the rest moves. aiokafka tells an assignor no
generation, so rounds are counted in the metadata themselves: a member that slept over a rebalance comes back with an
old round and loses against those who were there.

Members of one group must read the same topics: where two shops share a group by mistake, each would get some of the
other's partition numbers and never read those of its own. The leader keeps the members that were there first, gives the
others nothing but the topics that the group reads, and they stop. A member that reads only some of the topics stays,
since workers of two releases differ so during a rolling update.

The name `skutrend-co` is part of the group's protocol: a running group does not take members with another one.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from aiokafka.cluster import ClusterMetadata

log = logging.getLogger(__name__)
VERSION: Final = 1


class Claim(msgspec.Struct, frozen=True):
    """What a member says it owned, and in which round; travels as JSON in the group protocol's user data.

    reads: in the leader's answer to a member that it refuses, the topics that the others read.
    """

    owned: list[int] = []
    round: Annotated[int, msgspec.Meta(ge=-1, le=2**53)] = -1
    reads: list[str] = []


def read_claim(user_data: bytes | None) -> Claim:
    """Read a member's claim; bytes of another format claim nothing."""
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


def members_of_other_topics(
    subscriptions: Mapping[str, Iterable[str]], claims: Mapping[str, Claim]
) -> dict[str, list[str]]:
    """Find the members that read other topics than the group does, and say what that reads.

    The group's topics are those of the members with the newest round, then the largest holdings, then the most members.

    >>> members_of_other_topics({"a": ["x"], "b": ["y"]}, {"a": Claim([0], 3), "b": Claim()})
    {'b': ['x']}
    """
    reading: defaultdict[frozenset[str], list[str]] = defaultdict(list)
    for name, topics in subscriptions.items():
        reading[frozenset(topics)].append(name)

    def standing(topics: frozenset[str]) -> tuple[int, int, int, list[str]]:
        members = reading[topics]
        newest = max(claims[name].round for name in members)
        return -newest, -sum(len(claims[name].owned) for name in members), -len(members), sorted(topics)

    group = min(reading, key=standing)
    return {
        name: sorted(group) for topics, members in reading.items() if not (topics <= group or topics >= group)
        for name in members
    }  # fmt: skip


class CoAssignor(AbstractPartitionAssignor):  # type: ignore[misc]  # aiokafka has no types
    """aiokafka's assignor interface over `share`; one instance per consumer, since it remembers what it holds."""

    name = "skutrend-co"

    def __init__(self, refused: Callable[[list[str]], None] = lambda _: None) -> None:
        """Claim nothing yet. refused: called with the topics that the group reads, where this member reads others."""
        self.claim = Claim()
        self._refused = refused

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """Return what this member says of itself when it joins."""
        return ConsumerProtocolMemberMetadata(VERSION, sorted(topics), msgspec.json.encode(self.claim))

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Remember what the group gave us, and in which round."""
        numbers = {number for _, partitions in assignment.assignment for number in partitions}
        said = read_claim(assignment.user_data)
        self.claim = Claim(owned=sorted(numbers), round=said.round)
        if said.reads:
            self._refused(said.reads)

    def assign(
        self, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Compute the assignment of the whole group; runs in the group's leader only."""
        claims = {name: read_claim(member.user_data) for name, member in members.items()}
        refused = members_of_other_topics({name: member.subscription for name, member in members.items()}, claims)
        ours = {name: member.subscription for name, member in members.items() if name not in refused}
        partitions = {topic: set(cluster.partitions_for_topic(topic) or ()) for topic in set().union(*ours.values())}
        held = share(set().union(*partitions.values()), {name: claims[name] for name in ours})
        this_round = 1 + max(claim.round for claim in claims.values())
        _warn_of_differences(ours)
        for name, group in refused.items():
            log.warning(
                "member %s reads %s, the group reads %s: it gets nothing", name, members[name].subscription, group
            )
        return {
            name: ConsumerProtocolMemberAssignment(
                VERSION,
                [
                    (topic, sorted(partitions[topic].intersection(held[name])))
                    for topic in sorted(member.subscription)
                    if name in ours
                ],
                msgspec.json.encode(Claim(round=this_round, reads=refused.get(name, []))),
            )
            for name, member in members.items()
        }


def _warn_of_differences(subscriptions: Mapping[str, Iterable[str]]) -> None:
    """Warn of members that do not read all topics of the group: nobody reads those topics of their partitions."""
    every = set().union(*subscriptions.values())
    for name, topics in subscriptions.items():
        if every.difference(topics):
            log.warning(
                "member %s does not read %s, which others of the group do: until all workers are of one release and "
                "have the same settings nobody reads these for its partitions",
                name,
                ", ".join(sorted(every.difference(topics))),
            )
