"""Each part of ``make torture`` as a test, for ``TORTURE_SECONDS`` (60); and its judge, which knows what broke."""

import collections
import os

import pytest

from .inputs import Call, flags, judged, value_calls
from .parts import PARTS
from .running import run


@pytest.mark.torture
@pytest.mark.parametrize("name", PARTS)
def test_nothing_breaks(name):
    tally = run(PARTS[name], float(os.environ.get("TORTURE_SECONDS", "60")))
    assert tally.survived
    assert not tally.broke


@pytest.mark.torture
def test_every_argument_is_tried():
    tried = collections.Counter(call.name.partition(" --")[0] for call in value_calls())
    assert {flag.command for flag in flags() if flag.kind not in ("switch", "path") and flag.words} <= set(tried)
    names = {call.name for call in value_calls()}
    for flag in flags():
        if flag.kind not in ("switch", "path"):
            word = flag.words[0] if flag.words else flag.dest.upper()
            assert any(name.startswith(f"{flag.command} {word} ") for name in names), flag


@pytest.mark.parametrize(
    ("status", "err", "changed", "outcome"),
    [
        (2, "analyze: error: no\n", [], "survived"),
        (2, "analyze: error: no\n", ["out/.lock"], "broke"),
        (2, "analyze: warning: hm\nanalyze: error: no\n", [], "broke"),
        (2, "analyze: error: --momentum has an effect with --optimiser sgd only\n", [], "broke"),
        (0, "", [], "broke"),
        (None, "", [], "broke"),
        (1, "Traceback ...\nValueError: no\n", [], "broke"),
        (-9, "", [], "broke"),
    ],
)
def test_the_judge_knows_what_broke(status, err, changed, outcome):
    assert judged(Call(name="x", argv=("train",)), status, "", err, changed)[0] == outcome
