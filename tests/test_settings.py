"""Settings describe themselves: types from annotations, bounds, when they have an effect."""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignscape.errors import InputError
from alignscape.settings import (
    NON_NEGATIVE,
    POSITIVE,
    Only,
    at_least,
    between,
    changed_settings,
    check_settings,
    idle_settings,
    setting,
    settings_json,
    settings_of,
)


@dataclass(frozen=True, kw_only=True)
class Walk:
    """One setting of each kind."""

    steps: int = setting(10, "steps", check=at_least(1, "step", most=99))
    length: float = setting(0.5, "of a step", check=between(0, 2, "m", low_open=True))
    name: str = setting("walk", "what it is called")
    kind: Literal["random", "straight"] = setting("random", "how it goes")
    closed: bool = setting(False, "it ends where it begins", only=Only("--kind random", lambda w: w.kind == "random"))
    seeds: tuple[int, ...] = setting((0,), "of several walks", check=NON_NEGATIVE)
    marks: tuple[float, ...] = setting((), "distances to note", empty=True)
    out: Path | None = setting(None, "where to write", in_key=False)
    scale: float | None = setting(None, "of the map", check=POSITIVE)
    note: str = "no setting"

    def __post_init__(self) -> None:
        check_settings(self)


def test_the_annotation_says_what_a_value_is():
    found = settings_of(Walk)
    assert list(found) == [field.name for field in fields(Walk)][:-1]
    assert [one.kind for one in found.values()] == [int, float, str, str, bool, int, float, Path, float]
    assert [name for name, one in found.items() if one.several] == ["seeds", "marks"]
    assert [name for name, one in found.items() if one.optional] == ["out", "scale"]
    assert found["kind"].choices == ("random", "straight")
    assert found["kind"].flags == ("--kind",)
    assert settings_of(Walk) is found


def test_values_come_to_their_types():
    walk = Walk(length=1, seeds=[3, 4], marks=[1], out="here", scale=2)
    assert (walk.seeds, walk.marks, walk.out, walk.scale) == ((3, 4), (1.0,), Path("here"), 2.0)
    assert [type(value) for value in (walk.length, walk.marks[0], walk.scale)] == [float] * 3
    assert hash(walk) == hash(Walk(length=1.0, seeds=(3, 4), marks=(1.0,), out=Path("here"), scale=2.0))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("steps", 0, "steps is 0; it must be at least 1 step, and at most 99"),
        ("steps", 10**400, f"steps is {10**400}; it must be at least 1 step, and at most 99"),
        ("steps", 1234567, "steps is 1234567; it must be at least 1 step, and at most 99"),
        ("steps", 2.0, "steps is 2.0; it must be a whole number"),
        ("steps", True, "steps is True; it must be a whole number"),
        ("steps", None, "steps is missing"),
        ("length", 0, "length is 0; it must lie in (0, 2] m"),
        ("length", math.nan, "length is nan; it must be finite"),
        ("length", False, "length is False; it must be a number"),
        ("length", "1", "length is '1'; it must be a number"),
        ("scale", math.inf, "scale is inf; it must be finite"),
        ("scale", -math.inf, "scale is -inf; it must be finite"),
        ("scale", 10**400, "scale is inf; it must be finite"),
        ("scale", 1e39, "scale is 1e+39; it must be finite in float32"),
        ("scale", -1, "scale is -1; it must be positive"),
        ("name", 3, "name is 3; it must be text"),
        ("name", "caf\udce9", "name is 'caf\\udce9'; it must be text"),
        ("kind", "round", "kind is 'round'; known: random, straight"),
        ("kind", ["random"], "kind is ['random']; known: random, straight"),
        ("closed", 1, "closed is 1; it must be true or false"),
        ("seeds", (), "seeds is empty; it needs at least one value"),
        ("seeds", (1, -2), "seeds is -2; it must not be negative"),
        ("seeds", 1, "seeds is 1; it must be a sequence"),
        ("seeds", "12", "seeds is '12'; it must be a sequence"),
        ("marks", (0.5, None), "marks is None; it must be a number"),
        ("out", 5, "out is 5; it must be a path"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_it(name, value, message):
    with pytest.raises(InputError) as raised:
        Walk(**{name: value})
    assert str(raised.value) == message


WEIRD = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    st.sampled_from([10**400, -(10**400)]),
    *(st.just({}), st.just([[]])),
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(settings_of(Walk))), st.one_of(WEIRD, st.lists(WEIRD, max_size=3)))
def test_any_value_is_taken_or_refused(name, value):
    """Nothing but InputError, and what is taken is of its type, finite, and comes back from JSON."""
    one = settings_of(Walk)[name]
    if problem := one.problem(one.typed(value)):
        with pytest.raises(InputError) as raised:
            Walk(**{name: value})
        assert str(raised.value) == problem
        assert problem.startswith(f"{name} is ")
        return
    walk = Walk(**{name: value})
    kept = getattr(walk, name)
    for part in () if kept is None else kept if one.several else (kept,):
        assert type(part) is one.kind or isinstance(part, Path)
        assert one.kind is not float or math.isfinite(part)
    assert Walk(**settings_json(walk)) == walk


@given(st.floats(-3, 3), st.floats(-3, 3), st.booleans(), st.booleans())
def test_an_open_end_is_outside(value, end, low_open, high_open):
    bounds = between(end, end + 1, low_open=low_open, high_open=high_open)
    if value not in (end, end + 1):
        assert bounds.holds(value) == (end < value < end + 1)
    assert bounds.holds(end) == (not low_open)
    assert bounds.holds(end + 1) == (not high_open)


def test_what_has_no_effect_is_named_where_it_was_given():
    straight = Walk(kind="straight")
    assert [(one.name, only.words) for one, only in idle_settings(straight, ["closed", "kind"])] == [
        ("closed", "--kind random")
    ]
    assert not list(idle_settings(straight, ["kind"]))
    assert not list(idle_settings(Walk(), ["closed"]))


def test_what_results_depend_on_is_what_changed():
    assert changed_settings(Walk()) == {}
    assert changed_settings(Walk(length=0.5, seeds=(1,), out="x")) == {"seeds": [1]}
    assert settings_json(Walk(out="x"))["out"] == "x"
