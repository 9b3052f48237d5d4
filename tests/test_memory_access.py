"""Memory accesses: a tiny network counted by hand."""

import pytest

from alignscape.errors import InputError
from reports.paper.memory_access import Layer, linear_layers, memory_accesses

TINY = linear_layers([3, 2, 4])  # 3 x 2 + 2, then 2 x 4 + 4, a batch of 5


def totals(frame, *phases):
    rows = frame[frame["phase"].isin(phases)] if phases else frame
    return int(rows["reads"].sum()), int(rows["writes"].sum())


def test_the_forward_pass_by_hand():
    # layer 0 reads W 6, b 2, x 5 x 3 and writes y 5 x 2; layer 1 reads W 8, b 4, x 5 x 2 and writes y 5 x 4
    assert totals(memory_accesses(TINY, "bp", 5), "forward") == (6 + 2 + 15 + 8 + 4 + 10, 10 + 20)


def test_the_error_and_the_update_by_hand():
    # only layer 1 sends an error down: it reads W 8, delta 5 x 4, the mask's x 5 x 2 and writes 5 x 2
    assert totals(memory_accesses(TINY, "bp", 5), "error") == (8 + 20 + 10, 10)
    # layer 0 reads W 6, b 2, x 15, delta 10 and writes W, b; layer 1 reads 8, 4, 10, 20 and writes W, b
    assert totals(memory_accesses(TINY, "bp", 5), "update") == (6 + 2 + 15 + 10 + 8 + 4 + 10 + 20, 8 + 12)


def test_only_bp_transports_weights_and_only_where_memories_are_apart():
    assert totals(memory_accesses(TINY, "bp", 5), "transport") == (8, 8)
    assert totals(memory_accesses(TINY, "bp", 5, shared_memory=True), "transport") == (0, 0)
    for rule in ("fa", "ifa", "dfa", "pfa"):
        assert totals(memory_accesses(TINY, rule, 5), "transport") == (0, 0)


def test_fa_and_ifa_cost_what_bp_costs_without_transport():
    apart, together = memory_accesses(TINY, "bp", 5), memory_accesses(TINY, "bp", 5, shared_memory=True)
    fa, ifa = memory_accesses(TINY, "fa", 5), memory_accesses(TINY, "ifa", 5)
    assert totals(fa) == totals(ifa) == totals(together)
    assert sum(totals(apart)) - sum(totals(fa)) == 16
    assert set(fa["operand"]) == {"weights", "activations", "errors", "feedback"}


def test_dfa_reads_the_output_error_and_a_matrix_of_its_own():
    deep = linear_layers([3, 2, 2, 4])
    error = memory_accesses(deep, "dfa", 5)
    error = error[error["phase"] == "error"]
    # for each of the two layers: F 4 x 2, e 5 x 4, the mask's x 5 x 2; writes 5 x 2
    assert totals(error) == (2 * (8 + 20 + 10), 2 * 10)


def test_pfa_pays_for_its_two_matrices():
    frame = memory_accesses(TINY, "pfa", 5, expansion=3)
    middle = 3 * 4
    # B 4 x 12, R 12 x 2, delta 20, mask 10, the middle 60 in and out; writes 60 and 10
    assert totals(frame, "error") == (48 + 24 + 20 + 10 + 60, 60 + 10)
    # beside BP's update: R 24 read and written, x 10 and the middle's error 60 read
    plain = totals(memory_accesses(TINY, "bp", 5), "update")
    assert totals(frame, "update") == (plain[0] + middle * 2 + 10 + 60, plain[1] + middle * 2)


def test_a_convolution_counts_by_its_sizes():
    conv = Layer(inputs=3 * 8 * 8, outputs=4 * 8 * 8, weights=4 * 3 * 9, biases=4)
    forward = memory_accesses([conv], "fa", 2)
    assert totals(forward, "forward") == (108 + 4 + 2 * 192, 2 * 256)
    assert totals(forward, "error") == (0, 0)  # nothing is sent to the images


def test_an_unknown_rule_is_refused():
    with pytest.raises(InputError, match="known: bp"):
        memory_accesses(TINY, "hebb", 5)
