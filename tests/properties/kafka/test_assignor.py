from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.assignor import Claim, CoAssignor, members_of_other_topics, read_claim, share

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = st.text("abcdefgh", min_size=1, max_size=3)
CLAIMS = st.builds(Claim, owned=st.lists(st.integers(-2, 14), max_size=10), round=st.integers(-1, 4))
GROUPS = st.dictionaries(NAMES, CLAIMS, min_size=1, max_size=6)
COUNTS = st.integers(0, 12)
TOPICS = ("orders", "clicks", "price-changes")


def sizes(shares: Mapping[str, list[int]]) -> list[int]:
    return sorted(map(len, shares.values()))


def claims_of(shares: Mapping[str, list[int]], *, at_round: int) -> dict[str, Claim]:
    return {name: Claim(owned, at_round) for name, owned in shares.items()}


@given(COUNTS, GROUPS)
def test_every_number_goes_to_exactly_one_member_and_shares_differ_by_at_most_one(
    count: int, claims: dict[str, Claim]
) -> None:
    shares = share(range(count), claims)
    assert shares.keys() == claims.keys()
    assert sorted(number for held in shares.values() for number in held) == list(range(count))
    assert sizes(shares)[-1] - sizes(shares)[0] <= 1
    assert all(held == sorted(held) for held in shares.values())


@given(COUNTS, GROUPS, st.randoms(use_true_random=False))
def test_every_leader_computes_the_same_whatever_the_order_it_heard_the_members_in(
    count: int, claims: dict[str, Claim], dice: Random
) -> None:
    names = list(claims)
    dice.shuffle(names)
    again = {name: Claim(list(reversed(claims[name].owned)), claims[name].round) for name in names}
    assert share(reversed(range(count)), again) == share(range(count), claims)


@given(COUNTS, st.sets(NAMES, min_size=1, max_size=6), st.sets(NAMES, max_size=3), st.data())
def test_when_members_come_and_go_no_more_moves_than_fairness_demands(
    count: int, before: set[str], joining: set[str], data: st.DataObject
) -> None:
    shared = share(range(count), dict.fromkeys(before, Claim()))
    staying = data.draw(st.sets(st.sampled_from(sorted(before)), min_size=0 if joining - before else 1))
    now = staying | (joining - before)
    claims = {name: Claim(shared[name], 0) if name in staying else Claim() for name in now}
    shares = share(range(count), claims)
    kept = sum(len(set(shares[name]) & set(shared[name])) for name in staying)
    # the most that can stay: each holds what it had up to the small share, and `larger` of them one more
    small, larger = divmod(count, len(now))
    had = [len(shared[name]) for name in staying]
    assert kept == sum(min(each, small) for each in had) + min(larger, sum(each > small for each in had))


@given(COUNTS, GROUPS)
def test_nothing_moves_when_nothing_changed(count: int, claims: dict[str, Claim]) -> None:
    shared = share(range(count), claims)
    assert share(range(count), claims_of(shared, at_round=5)) == shared


@given(st.integers(1, 12), st.lists(NAMES, min_size=2, max_size=5, unique=True), st.data())
def test_a_member_that_slept_over_a_rebalance_takes_nothing_from_those_who_were_there(
    count: int, names: list[str], data: st.DataObject
) -> None:
    sleeper, awake = names[0], names[1:]
    shared = share(range(count), dict.fromkeys(awake, Claim()))
    stale = Claim(data.draw(st.lists(st.integers(0, count - 1), unique=True)), 3)
    without = share(range(count), claims_of(shared, at_round=4) | {sleeper: Claim()})
    shares = share(range(count), claims_of(shared, at_round=4) | {sleeper: stale})
    assert {name: shares[name] for name in awake} == {name: without[name] for name in awake}


@given(st.binary(max_size=40))
def test_foreign_bytes_claim_nothing_and_break_nothing(noise: bytes) -> None:
    claim = read_claim(noise)
    assert sizes(share(range(4), {"a": claim, "b": Claim()})) == [2, 2]


@pytest.mark.parametrize(
    "noise",
    [None, b"", b"\xff\xfe", b"[1]", b'{"owned": "all"}', b'{"owned": [1.5]}', b'{"round": 1e300}', b'{"round": -7}'],
)
def test_bytes_of_another_assignor_claim_nothing(noise: bytes | None) -> None:
    assert read_claim(noise) == Claim()


def test_a_field_of_a_newer_version_is_ignored() -> None:
    assert read_claim(b'{"owned": [2, 1], "round": 3, "rack": "b"}') == Claim([2, 1], 3)


class Group:
    """What a broker does: collects what members say, lets one of them assign, hands the answers out."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self.cluster = SimpleNamespace(
            partitions_for_topic=lambda topic: set(range(counts[topic])) if topic in counts else None
        )
        self.members: dict[str, CoAssignor] = {}

    def rebalance(self, subscriptions: Mapping[str, tuple[str, ...]] | None = None) -> dict[str, dict[str, list[int]]]:
        said: dict[str, Any] = {}
        for name, member in self.members.items():
            topics = (subscriptions or {}).get(name, TOPICS)
            said[name] = self._over_the_wire(member.metadata(topics), ConsumerProtocolMemberMetadata)
        leader = self.members[min(self.members)]
        given = leader.assign(self.cluster, said)
        answers = {name: self._over_the_wire(given[name], ConsumerProtocolMemberAssignment) for name in given}
        for name, answer in answers.items():
            self.members[name].on_assignment(answer)
        return {name: dict(answer.assignment) for name, answer in answers.items()}

    @staticmethod
    def _over_the_wire(what: Any, kind: Any) -> Any:  # noqa: ANN401 - aiokafka has no types
        return kind.decode(what.encode())


def test_partition_p_of_every_topic_goes_to_one_member() -> None:
    group = Group(dict.fromkeys(TOPICS, 8))
    group.members = {name: CoAssignor() for name in "abc"}
    given = group.rebalance()
    for topics in given.values():
        assert topics["orders"] == topics["clicks"] == topics["price-changes"]
    assert sorted(number for topics in given.values() for number in topics["orders"]) == list(range(8))


def test_topics_of_different_counts_still_meet_by_number() -> None:
    group = Group({"orders": 6, "clicks": 4})  # and price-changes is not there
    group.members = {name: CoAssignor() for name in "ab"}
    for topics in group.rebalance().values():
        assert topics["clicks"] == [number for number in topics["orders"] if number < 4]
        assert topics["price-changes"] == []


def test_a_member_gets_only_topics_it_subscribed_to() -> None:
    group = Group(dict.fromkeys(TOPICS, 2))
    group.members = {"a": CoAssignor()}
    assert group.rebalance({"a": ("orders",)}) == {"a": {"orders": [0, 1]}}


def test_a_group_lives_through_joins_a_death_and_a_sleeper_with_the_fewest_moves() -> None:
    group = Group(dict.fromkeys(TOPICS, 8))
    group.members["a"] = CoAssignor()
    assert group.rebalance()["a"]["orders"] == list(range(8))
    group.members["b"] = CoAssignor()
    second = group.rebalance()
    sleeper = group.members.pop("b")
    group.members["c"] = CoAssignor()
    third = group.rebalance()
    assert third["a"] == second["a"], "who stays keeps what it had"
    group.members["b"] = sleeper  # back, with a claim of two rounds ago
    fourth = group.rebalance()
    for name in "ac":
        assert set(fourth[name]["orders"]) <= set(third[name]["orders"])
    assert sorted(len(topics["orders"]) for topics in fourth.values()) == [2, 3, 3]
    rounds = {msgspec.json.decode(member.metadata(TOPICS).user_data)["round"] for member in group.members.values()}
    assert rounds == {3}


def prefixed(prefix: str) -> tuple[str, ...]:
    return tuple(prefix + topic for topic in TOPICS)


@given(GROUPS, st.dictionaries(NAMES, st.sampled_from(["a-", "b-", "c-"]), max_size=6))
def test_one_set_of_topics_is_the_group_s_and_whoever_was_there_first_reads_it(
    claims: dict[str, Claim], prefixes: dict[str, str]
) -> None:
    reading = {name: prefixed(prefixes.get(name, "a-")) for name in claims}
    refused = members_of_other_topics(reading, claims)
    kept = {reading[name] for name in claims.keys() - refused.keys()}
    assert len(kept) == 1
    assert all(told == sorted(*kept) for told in refused.values())
    assert all(reading[name] not in kept for name in refused)
    newest = max(claim.round for claim in claims.values())
    assert any(claims[name].round == newest for name in claims.keys() - refused.keys())
    assert members_of_other_topics(dict(reversed(reading.items())), claims) == refused


def test_a_member_that_reads_other_topics_gets_nothing_and_is_reported_while_the_others_keep_theirs() -> None:
    counts = dict.fromkeys((*prefixed("eu-"), *prefixed("us-")), 4)
    group, told = Group(counts), dict[str, list[str]]()
    for name in "bc":
        group.members[name] = CoAssignor(lambda topics, name=name: told.update({name: topics}))  # type: ignore[misc]
    shared = group.rebalance(dict.fromkeys("bc", prefixed("eu-")))
    group.members["a"] = CoAssignor(lambda topics: told.update(a=topics))  # it leads, and is refused all the same
    given = group.rebalance({"a": prefixed("us-"), **dict.fromkeys("bc", prefixed("eu-"))})
    assert given == {"a": {}, **shared}
    assert told == {"a": sorted(prefixed("eu-"))}
    del group.members["a"]
    assert group.rebalance(dict.fromkeys("bc", prefixed("eu-"))) == shared


def test_a_member_of_a_release_that_reads_more_or_less_is_let_be_and_told_of(caplog: pytest.LogCaptureFixture) -> None:
    group = Group(dict.fromkeys((*TOPICS, "stock-levels"), 4))
    group.members = {name: CoAssignor() for name in "ab"}
    given = group.rebalance({"a": TOPICS, "b": (*TOPICS, "stock-levels")})
    assert sorted(given["a"]["orders"] + given["b"]["orders"]) == [0, 1, 2, 3]
    assert "member a does not read stock-levels" in caplog.text


def test_the_name_in_the_group_s_protocol_stays() -> None:
    assert CoAssignor.name == "skutrend-co", "a running group takes no members with another assignor"
