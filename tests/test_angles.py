"""Alignment on tensors made by hand."""

import math

import pytest
import torch

from training.angles import alignment


def test_hand_made_angles():
    weight = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    backward = torch.tensor([[0.0, 5.0], [0.0, 1.0], [-1.0, -1.0]])  # 90, 0 and 180 degrees
    result = alignment(weight, backward)
    assert result.row_angle == pytest.approx(90)
    flat = math.degrees(math.acos((0 + 2 - 6) / math.sqrt(23 * 28)))
    assert result.flat_angle == pytest.approx(flat)
    assert result.norm_ratio == pytest.approx(math.sqrt(28 / 23))


def test_row_and_flat_angle_differ_where_rows_differ_in_length():
    weight = torch.tensor([[10.0, 0.0], [0.0, 0.1]])
    backward = torch.tensor([[10.0, 0.0], [0.1, 0.0]])
    result = alignment(weight, backward)
    assert result.row_angle == pytest.approx(45)
    assert result.flat_angle == pytest.approx(math.degrees(math.acos(100 / 100.01)))


@pytest.mark.parametrize("degrees", [0.0, 1e-5, 30.0, 179.99999])
def test_small_angles_are_resolved(degrees):
    angle = math.radians(degrees)
    backward = torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64)
    result = alignment(torch.tensor([[1.0, 0.0]], dtype=torch.float64), backward)
    assert result.row_angle == pytest.approx(degrees, abs=1e-9)


def test_convolution_filters_are_rows_and_a_dead_neuron_has_no_direction():
    weight = torch.zeros(2, 1, 2, 2)
    weight[0, 0, 0, 0] = weight[1, 0, 1, 1] = 1
    backward = weight.clone()
    backward[1] = 0
    assert alignment(weight, backward).row_angle == pytest.approx(45)
