"""When to measure, by a clock of the test's own."""

import random

import pytest

from alignscape.pace import Pace


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def measured(pace: Pace, clock: FakeClock, steps: int, step_cost, cost, first: int = 0) -> list[int]:
    """The steps at which a loop measures whose steps and measurements take so many seconds."""
    found = []
    for step in range(first, first + steps):
        clock.now += step_cost(step)
        if pace.due(step):
            with pace.measuring():
                clock.now += cost(step)
            found.append(step)
    return found


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("ratio", [0.5, 7, 60])  # a measurement's cost in steps
def test_the_share_is_kept_and_used(share, ratio):
    clock = FakeClock()
    pace = Pace(share=share, clock=clock)
    noise = random.Random(3)
    steps = int(40 * ratio / share) + 100
    found = measured(
        pace, clock, steps, lambda _: 0.01 * noise.uniform(0.5, 1.5), lambda _: 0.01 * ratio * noise.uniform(0.9, 1.1)
    )
    assert found[0] == 0
    assert 0.9 * share < pace.taken < 1.02 * share
    assert pace.taken == pytest.approx(pace.spent / (clock.now - 100), rel=0.01)


def test_measurements_that_become_dearer_become_rarer():
    clock = FakeClock()
    pace = Pace(share=0.05, clock=clock)
    found = measured(pace, clock, 40_000, lambda _: 0.01, lambda step: 0.1 if step < 20_000 else 0.4)
    early, late = (sum(low <= step < low + 20_000 for step in found) for low in (0, 20_000))
    assert early == pytest.approx(4 * late, rel=0.1)
    assert 0.045 < pace.taken <= 0.05


def test_every_n_steps_is_obeyed_and_its_share_known():
    clock = FakeClock()
    pace = Pace(every=10, clock=clock)
    assert measured(pace, clock, 35, lambda _: 1.0, lambda _: 10.0) == [0, 10, 20, 30]
    assert pace.taken == pytest.approx(40 / (34 + 40))


def test_a_resumed_pace_goes_on_where_it_was():
    whole_clock, clock = FakeClock(), FakeClock()
    whole, first = Pace(share=0.05, clock=whole_clock), Pace(share=0.05, clock=clock)
    expected = measured(whole, whole_clock, 2000, lambda _: 0.01, lambda _: 0.05)
    found = measured(first, clock, 1000, lambda _: 0.01, lambda _: 0.05)
    state = first.state()
    clock.now += 1e6  # the process was gone for a while
    second = Pace(share=0.05, clock=clock)
    second.restore(state)
    found += measured(second, clock, 1000, lambda _: 0.01, lambda _: 0.05, first=1000)
    assert len(found) == pytest.approx(len(expected), abs=1)
    assert second.count == len(found)
    assert second.taken <= 0.05
