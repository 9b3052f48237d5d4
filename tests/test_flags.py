"""Flags and TOML keys of settings: what is given makes objects, once, and nothing idle passes."""

import argparse
import tomllib
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import example
from hypothesis import given as drawn
from hypothesis import settings as drawing
from hypothesis import strategies as st

from alignscape.errors import InputError
from alignscape.settings import Only, between, check_settings, setting, settings_of
from reports.flags import add_flags, explained, given, one_of, read_toml, toml_text
from reports.products import each_of, idle


def halves(text: str) -> list[float]:
    return [float(part) for part in text.split("/")]


@dataclass(frozen=True, kw_only=True)
class Brew:
    """Settings of every kind that a flag or a key of a file may have."""

    leaf: Literal["green", "black"] = setting("green", "the leaf", group="leaves")
    grams: float = setting(2.5, "100% of the leaf", metavar="G", check=between(0, 50), group="leaves", swept=True)
    smoked: bool = setting(
        False, "over pine", group="leaves", only=Only("--leaf black", lambda brew: brew.leaf == "black")
    )
    minutes: tuple[int, ...] = setting((3,), "of each infusion", flags=("--minutes", "--min"))
    spices: tuple[str, ...] = setting((), "what else", empty=True)
    degrees: float | None = setting(None, "of the water", default_text="boiling", swept=True, parse=halves)
    stirred: float = setting(
        1.0, "times", swept=True, only=Only("--degrees over 50", lambda brew: (brew.degrees or 100) > 50)
    )
    name: str = setting("", "what it is called")
    batch: int = setting(0, "of the leaf, which the shop writes down", flag=False)

    def __post_init__(self) -> None:
        check_settings(self)


def parsed(*argv: str) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    add_flags(parser, Brew, group="water")
    return given(parser.parse_args(argv), Brew)


def test_flags_give_what_is_given_and_nothing_else():
    assert parsed() == {}
    argv = ["--grams", "1", "2.5", "--min", "3", "4", "--spices", "--degrees", "60/70", "80", "--smoked"]
    assert parsed(*argv) == {
        "grams": [1.0, 2.5], "smoked": True, "minutes": [3, 4], "spices": [], "degrees": [60.0, 70.0, 80.0]
    }  # fmt: skip


def test_help_says_effect_sweep_and_default_under_its_heading():
    parser = argparse.ArgumentParser()
    headings = add_flags(parser, Brew, group="water", details={"leaf": "Of one bush."})
    assert list(headings) == ["water", "leaves"]
    text = " ".join(parser.format_help().split())
    assert "the leaf (default: green). Of one bush." in text
    assert "100% of the leaf; one run each (default: 2.5)" in text
    assert "over pine; with --leaf black only (default: no)" in text
    assert "of the water; one run each (default: boiling)" in text
    assert "what else (default: none)" in text
    assert "--minutes MINUTES [MINUTES ...], --min" in text
    assert "--batch" not in text
    assert explained(settings_of(Brew)["minutes"]) == "of each infusion (default: 3)"


def test_each_combination_once_and_the_last_setting_first():
    made = each_of(Brew, {"degrees": [60.0, 70.0, 60], "name": "x", "grams": [2, 1.0, 2.0]})
    assert [(brew.grams, brew.degrees) for brew in made] == [(2, 60), (2, 70), (1, 60), (1, 70)]
    assert {brew.name for brew in made} == {"x"}
    assert each_of(Brew, {"grams": 4}) == [Brew(grams=4.0)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"smoked": False}, "--smoked has an effect with --leaf black only: leave it out"),
        ({"grams": [1.0, 51.0]}, r"grams is 51; it must lie in \[0, 50\]"),
        ({"grams": [[1.0]]}, r"grams is \[1.0\]; it must be a number"),
        ({"grams": []}, "grams is empty"),
        ({"degrees": [20.0, 30.0], "stirred": [2.0]}, "--stirred has an effect with --degrees over 50 only"),
    ],
)
def test_what_cannot_be_made_is_named(values, message):
    with pytest.raises(InputError, match=message):
        each_of(Brew, values)


def test_in_a_sweep_only_what_is_idle_throughout_is_refused():
    values = {"degrees": [20.0, 80.0], "stirred": [2.0]}
    assert [brew.degrees for brew in each_of(Brew, values)] == [20, 80]
    assert idle(Brew, each_of(Brew, values)) == {"smoked": "--leaf black"}
    with pytest.raises(InputError, match=r"stirred in brew\.toml has an effect"):
        one_of(Brew, {"degrees": 20.0, "stirred": 1.0}, places={"stirred": "stirred in brew.toml"})
    assert one_of(Brew, {"degrees": 20.0}) == Brew(degrees=20)


def read(tmp_path, text: str | bytes) -> dict[str, object]:
    path = tmp_path / "brew.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_toml(path, Brew)


def test_a_file_gives_what_flags_give(tmp_path):
    text = "grams = [1, 2.5]\nsmoked = true\nminutes = [3, 4]\nspices = []\ndegrees = '60/70'"
    argv = ["--grams", "1", "2.5", "--smoked", "--minutes", "3", "4", "--spices", "--degrees", "60/70"]
    assert read(tmp_path, text) == parsed(*argv)
    assert read(tmp_path, "grams = 1") == {"grams": [1.0]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grams = ", "brew.toml is not TOML: "),
        (b"\xff\xfe", "brew.toml is not TOML: "),
        ("spices = " + "[" * 5000, "brew.toml is not TOML: "),
        ("batch = 1", "brew.toml has the unknown setting 'batch'; known: leaf, grams"),
        ("pot = 1", "brew.toml has the unknown setting 'pot'; known: leaf, grams"),
        ("[grams]\nx = 1", "brew.toml: grams is {'x': 1}; it must be a number"),
        ("grams = 'much'", "brew.toml: grams is 'much'; it must be a number"),
        ("grams = [1, true]", "brew.toml: grams is True; it must be a number"),
        ("grams = nan", "brew.toml: grams is nan; it must be finite"),
        ("grams = 1" + "0" * 400, "brew.toml: grams is inf; it must be finite"),
        ("grams = []", "brew.toml: grams is empty"),
        ("minutes = 3", "brew.toml: minutes is 3; it must be a sequence"),
        ("minutes = [3.5]", "brew.toml: minutes is 3.5; it must be a whole number"),
        ("leaf = 'red'", "brew.toml: leaf is 'red'; known: green, black"),
        ("leaf = ['green', 'black']", "brew.toml: leaf is ['green', 'black']; known: green, black"),
        ("smoked = 'yes'", "brew.toml: smoked is 'yes'; it must be true or false"),
        ("name = 2020-01-01", "brew.toml: name is datetime.date(2020, 1, 1); it must be text"),
        ("degrees = '60/x'", "brew.toml: degrees is '60/x': could not convert"),
    ],
)
def test_what_a_file_gets_wrong_is_one_line_with_its_name(tmp_path, text, message):
    with pytest.raises(InputError) as raised:
        read(tmp_path, text)
    assert message in str(raised.value)


def test_a_file_that_is_not_there(tmp_path):
    for path in (tmp_path, tmp_path / "brew.toml"):
        with pytest.raises(InputError, match=r"cannot read the config file .*: (Is a|No such file or) "):
            read_toml(path, Brew)


NUMBERS = st.floats(0, 50)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "leaf": st.sampled_from(["green", "black"]),
        "grams": st.lists(NUMBERS | st.integers(0, 50), min_size=1, max_size=3),
        "smoked": st.booleans(),
        "minutes": st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=3),
        "spices": st.lists(st.text(), max_size=3),
        "degrees": st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=3),
        "stirred": st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=2),
        "name": st.text(),
    },
)


@drawing(max_examples=300, deadline=None)
@drawn(VALUES)
@example({"name": '"\\\x00\x1f\x7f\x85\u2028\n\r\t\'""" \U0001f375 # no comment', "spices": ["a]", "', ["]})
def test_what_is_written_is_read_as_it_was(tmp_path_factory, values):
    names = [name for name in values if name not in idle(Brew, each_of_any(values))]
    made = each_of(Brew, {name: values[name] for name in names})
    path = tmp_path_factory.mktemp("toml") / "brew.toml"
    path.write_text(toml_text(Brew, made, without=idle(Brew, made)), encoding="utf-8", newline="")
    assert each_of(Brew, read_toml(path, Brew)) == made


def each_of_any(values):
    """The objects that ``values`` make, whether all of them have an effect or not."""
    return [Brew(**{**values, "grams": 1, "stirred": 1, "degrees": one}) for one in values.get("degrees", [None])]


def test_a_written_file_explains_each_setting_and_comments_out_the_rest(tmp_path):
    made = each_of(Brew, {"grams": [1.0, 2.0]})
    text = toml_text(Brew, made, without=idle(Brew, made), details={"name": "Any."})
    assert tomllib.loads(text) == {
        "leaf": "green", "grams": [1.0, 2.0], "minutes": [3], "spices": [], "stirred": 1.0, "name": ""
    }  # fmt: skip
    assert "# over pine; with --leaf black only (default: no)\n# smoked = false\n" in text
    assert "# of the water; one run each (default: boiling)\n# degrees = DEGREES\n" in text
    assert "# what it is called (default: none). Any.\n" in text
    assert "# ---- leaves ----\n" in text
    assert "batch" not in text
