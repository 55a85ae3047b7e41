"""A bucket lets through what its policy says, no more, and tells truly when it lets the next through."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hub.limits import policies
from hub.limits.rules import MICROSECONDS_PER_S, Policy, judge, limit_field, policy_field, take

quotas_and_windows = st.sampled_from([(1, 1), (1, 60), (2, 10), (5, 10), (10, 60), (20, 3_600), (600, 60)])
pauses_us = st.lists(st.integers(0, 40 * MICROSECONDS_PER_S) | st.integers(0, 50_000), max_size=120)


def _policy(quota_and_window):
    quota, window_s = quota_and_window
    return Policy("p", quota, window_s, "a test")


def _run(policy, pauses_us):
    """Instants and decisions of requests after these pauses."""
    now_us = rested_at_us = 1_000_000_000_000
    decided = []
    for pause_us in pauses_us:
        now_us += pause_us
        allowed, rested_at_us = take(policy, rested_at_us, now_us)
        decided.append((now_us, allowed, judge(policy, allowed, rested_at_us, now_us)))
    return decided


@given(quotas_and_windows, pauses_us)
def test_in_no_span_of_time_is_more_let_through_than_the_quota_and_what_came_back_since(quota_and_window, pauses):
    policy = _policy(quota_and_window)
    passed = [now_us for now_us, allowed, _ in _run(policy, pauses) if allowed]
    for first, begun_us in enumerate(passed):
        for count, now_us in enumerate(passed[first:], 1):
            assert count <= policy.quota + (now_us - begun_us) // policy.cost_us


@given(quotas_and_windows, pauses_us)
def test_whoever_is_refused_has_had_the_quota_within_the_window(quota_and_window, pauses):
    policy = _policy(quota_and_window)
    decided = _run(policy, pauses)
    for at, (now_us, allowed, _) in enumerate(decided):
        if not allowed:
            recent = [then_us for then_us, passed, _ in decided[:at] if passed and now_us - then_us < policy.window_us]
            assert len(recent) >= policy.quota


@given(quotas_and_windows, pauses_us)
def test_as_many_as_remain_pass_at_once_and_the_next_passes_exactly_when_it_was_told(quota_and_window, pauses):
    policy = _policy(quota_and_window)
    now_us = rested_at_us = 0
    for pause_us in pauses[:20]:
        now_us += pause_us
        allowed, rested_at_us = take(policy, rested_at_us, now_us)
        verdict = judge(policy, allowed, rested_at_us, now_us)
        assert allowed or verdict.remaining == 0
        state_us = rested_at_us
        for _ in range(verdict.remaining):
            passed, state_us = take(policy, state_us, now_us)
            assert passed
        assert not take(policy, state_us, now_us)[0]
        assert not take(policy, state_us, now_us + verdict.next_in_us - 1)[0]
        assert take(policy, state_us, now_us + verdict.next_in_us)[0]
        assert verdict.next_in_us <= policy.cost_us
        assert verdict.next_in_s * MICROSECONDS_PER_S >= verdict.next_in_us
        assert verdict.next_in_s >= 1


@given(quotas_and_windows, st.integers(1, 200))
def test_a_refused_request_costs_nothing(quota_and_window, refused):
    policy = _policy(quota_and_window)
    rested_at_us = 0
    for _ in range(policy.quota):
        _, rested_at_us = take(policy, rested_at_us, 0)
    for _ in range(refused):
        allowed, after_us = take(policy, rested_at_us, 0)
        assert not allowed
        assert after_us == rested_at_us
    assert take(policy, rested_at_us, policy.cost_us)[0]


@given(quotas_and_windows, st.integers(0, 10**15))
def test_a_clock_set_back_locks_nobody_out_for_longer_than_the_window(quota_and_window, back_us):
    policy = _policy(quota_and_window)
    now_us = rested_at_us = 10**15
    for _ in range(policy.quota):
        _, rested_at_us = take(policy, rested_at_us, now_us)
    now_us -= back_us
    _, rested_at_us = take(policy, rested_at_us, now_us)
    assert take(policy, rested_at_us, now_us + policy.cost_us)[0]


def test_the_headers_are_written_as_the_draft_has_them():
    policy = Policy("sign-in-client", 30, 900, "a test")
    verdict = judge(policy, True, 2 * policy.cost_us, 0)
    other = judge(policies.CLIENT, False, policies.CLIENT.window_us, 0)
    assert policy_field([verdict, other]) == '"sign-in-client";q=30;w=900, "client";q=6000;w=60'
    assert limit_field([verdict, other]) == '"sign-in-client";r=28;t=30, "client";r=0;t=1'


def test_every_limit_has_a_name_of_its_own_and_a_reason():
    every = policies.IN_THE_PROCESS + policies.IN_THE_DATABASE
    assert len({policy.name for policy in every}) == len(every)
    assert set(every) == {each for each in vars(policies).values() if isinstance(each, Policy)}
    for policy in every:
        assert len(policy.reason) > 40
        assert policy.name.replace("-", "").isalpha()
