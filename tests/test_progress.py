"""Where a long computation stands, in a log: products, residuals and the time left."""

import re

import pytest
import torch
from curvature_cases import cases, with_spectrum

import reports.progress
from landscape import Blocks, HessianOperator, extreme_eigenpairs, hutchinson_trace, slq_density
from reports.progress import ProgressDisplay


@pytest.fixture
def clock(monkeypatch):
    """Time that passes as the test says."""
    now = [100.0]
    monkeypatch.setattr(reports.progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_every_ten_seconds_with_the_time_left(clock, capsys):
    show = ProgressDisplay("net: eigenvalues", "pair")
    for seconds, share in ((4, 0.1), (8, 0.2), (12, 0.25), (20, 0.4), (23, 0.5)):
        clock[0] = 100.0 + seconds
        show(0, 5)
        show.tell(f"{seconds} products", share)
    assert capsys.readouterr().err.splitlines() == [
        "net: eigenvalues: 12 products, 12 s, about 36 s left",
        "net: eigenvalues: 23 products, 23 s, about 23 s left",
    ]


def test_a_tenth_is_told_as_before_and_counts_as_a_line(clock, capsys):
    show = ProgressDisplay("work", "image")
    clock[0] += 9
    show(1, 10)
    clock[0] += 5
    show.tell("5 products", 0.15)
    assert capsys.readouterr().err == "work: 1/10 images, 9 s\n"


class Lines:
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float]] = []

    def __call__(self, done: int, total: int) -> None:
        pass

    def tell(self, standing: str, share: float) -> None:
        self.told.append((standing, share))


def test_methods_say_products_and_residuals():
    operator, lines = with_spectrum(torch.linspace(0, 1, 200)), Lines()
    found = extreme_eigenpairs(operator, 2, progress=lines)
    products = [int(re.match(r"(\d+) products, residual \S+ of 1.0e-04", told)[1]) for told, _ in lines.told]
    assert products == sorted(products)
    assert products[-1] <= found.n_products
    assert lines.told[-1][1] == 1
    assert all(0 <= share <= 1 for _, share in lines.told)
    lines = Lines()
    hutchinson_trace(operator, tol=1e-9, max_probes=40, progress=lines)
    assert lines.told[-1][1] == 1
    assert re.match(r"40 products, interval \+-\d+.\d% of", lines.told[-1][0])
    lines = Lines()
    slq_density(operator, steps=10, probes=2, progress=lines)
    assert lines.told[-1] == ("20 products of 20", 1)


def test_groups_say_how_many_have_ended():
    case, lines = cases()["mlp"], Lines()
    Blocks(HessianOperator(case.model, case.loss, case.batches)).eigenpairs(k=1, progress=lines)
    assert re.fullmatch(r"3 of 3 groups, \d+ products", lines.told[-1][0])
