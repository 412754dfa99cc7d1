"""The bound on requests in flight, found from the answers' speed alone."""

from collections.abc import Callable

from prox_hpc.serve.limit import Limit


def drive(limit: Limit, speed: Callable[[int], float], seconds: float, kind: str = "Score", wait: bool = True) -> int:
    """Answers of 100 tokens each, `speed(bound)` tokens a second, for so long; returns the bound at the end."""
    now = 0.0
    while now < seconds:
        now += 100 / speed(limit.value)
        limit.answered(100, kind, wait, now)
    return limit.value


def test_the_bound_rises_while_that_helps_and_falls_back_where_it_no_longer_does() -> None:
    for knee in (16, 32, 128):
        limit = Limit(None, 256)
        assert limit.value == 16
        assert drive(limit, lambda bound, knee=knee: 1000 * min(bound, knee), 60) == knee  # type: ignore[misc]
        assert limit.settled


def test_it_stops_at_the_most() -> None:
    limit = Limit(None, 100)
    assert drive(limit, lambda bound: 1000 * bound, 60) == 100
    assert limit.settled
    assert Limit(None, 4).value == 4


def test_thrashing_is_left_behind() -> None:
    """Twice as many in flight and the server throws work away: back to what was best."""
    limit = Limit(None, 256)
    assert drive(limit, lambda bound: 1000 * bound if bound <= 64 else 500, 300) == 64


def test_a_given_bound_stays() -> None:
    limit = Limit(24, 256)
    assert limit.settled
    assert drive(limit, lambda bound: 1000 * bound, 60) == 24


def test_nothing_is_learnt_while_the_server_waits_for_requests() -> None:
    limit = Limit(None, 256)
    assert drive(limit, lambda bound: 1000 * bound, 60, wait=False) == 16
    assert not limit.settled


def test_a_new_kind_of_work_starts_the_search_again() -> None:
    """Scoring is served well by few in flight, generating wants more."""
    limit = Limit(None, 256)
    assert drive(limit, lambda bound: 16_000, 60) == 16
    assert drive(limit, lambda bound: 100 * min(bound, 64), 300, "Generation") == 64
    assert drive(limit, lambda bound: 1000 * bound, 60) == 64  # neither is new any more
