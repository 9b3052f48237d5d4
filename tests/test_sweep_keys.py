"""Command lines of old make the runs that they made: the keys of 1,000 of them, as the version before sweeps of any
setting gave them."""

import argparse
import hashlib
import json
import random

from alignscape.errors import InputError
from reports.commands.train_flags import add_arguments, make_configs

# What each flag may be given; several values in one entry were a sweep then, too. What is refused counts as refused.
WORDS = {
    "--rule": ["bp", "fa", "ifa", "dfa", "pfa", "pfa-o", "usf", "frsf", "brsf", "kp", "pal", "wm"],
    "--angles": ["0", "30", "90 180", "0 45.5 45.5", "12.5"],
    "--alignment": ["gaussian", "exact"],
    "--expansion": ["10", "3"],
    "--feedback-density": ["1", "0.5"],
    "--forward-scale": ["1", "1.4142135623730951", "0.5 2"],
    "--backward-scales": ["1", "0.5 0.25 0.5"],
    "--mirror-rate": ["0.02", "0.1"],
    "--pal-gain": ["1.5"],
    "--dataset": ["digits", "cifar10"],
    "--train-size": ["100"],
    "--subset-seed": ["0", "3"],
    "--network": ["mlp", "lenet"],
    "--hidden": ["", "8", "512 512", "64 32"],
    "--epochs": ["30", "0", "7"],
    "--noise-epochs": ["0", "2"],
    "--batch-size": ["128", "32"],
    "--optimiser": ["adam", "sgd"],
    "--lr": ["1e-4", "1e-3 0.01", "0.1 0.1"],
    "--momentum": ["0.9", "0"],
    "--weight-decays": ["0", "1e-4 1e-3"],
    "--first-epoch-weight-decay": ["0", "0.1"],
    "--lr-steps": ["", "3 5"],
    "--lr-gamma": ["0.1", "0.5"],
    "--precision": ["fp32", "bf16"],
    "--seeds": ["0", "0..3", "5 1..2 5"],
    "--checkpoint-every": ["1"],
    "--snapshot-every": ["0", "10"],
    "--snapshot-sketch": ["0", "8"],
    "--gradient-alignment": ["0", "50"],
    "--monitor": ["none", "hessian"],
    "--monitor-every": ["0", "10"],
}
CALLS = 4_000  # of which about 1,000 are no refusals

# of every hundred, at revision b0290c6
BEFORE = [
    "83aa7508a8dc",
    "dc10100bcf5c",
    "3b0627c9e3dc",
    "bf66107c37e9",
    "b674df5e8faf",
    "82155c1eee97",
    "21d8c04be908",
    "27592aea4a64",
    "f698ca669795",
    "1e63f12a2b9b",
    "a9cb2c9e55a3",
    "4ec0d7c9882d",
    "70c2bd49a237",
    "06581da840da",
    "92e1a1dfd787",
    "6ae49d5ee012",
    "86dd51a486c7",
    "afd6867c3c61",
    "3a1b5e39d0e6",
    "97c422775dea",
    "173e6fc2a1d5",
    "e63d442c015f",
    "3892b3a4802d",
    "a2f275a3088f",
    "4bc3c708e44d",
    "d9eedfbe63da",
    "e60828762749",
    "54f60122a7bb",
    "4b44f6440531",
    "d07ee584bf4e",
    "fcd5087b3b0a",
    "cf1493e55ff3",
    "f0bdb7b18968",
    "4066b8af6d7b",
    "8c26fe46f920",
    "107da7788520",
    "1f2a6d12ab03",
    "1c844f7c5727",
    "bc7b588a18ac",
    "6a051d6eaeb8",
]


def command_lines():
    chance = random.Random(0)
    for _ in range(CALLS):
        chosen = [flag for flag in WORDS if chance.random() < (0.9 if flag == "--rule" else 0.13)]
        yield [
            word for flag in chosen for word in (flag, *WORDS[flag][int(chance.random() * len(WORDS[flag]))].split())
        ]


def outcomes():
    """The keys of each command line, or None of one that is refused."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for argv in command_lines():
        try:
            yield [config.key("data") for config in make_configs(parser.parse_args(argv))]
        except InputError:
            yield None


def digests(found):
    """One short digest for every hundred outcomes, so that a difference has a place."""
    return [
        hashlib.sha256(json.dumps(found[start : start + 100]).encode()).hexdigest()[:12]
        for start in range(0, len(found), 100)
    ]


def test_the_keys_of_command_lines_of_old_are_unchanged():
    found = list(outcomes())
    accepted = [keys for keys in found if keys is not None]
    assert len(accepted) > 900
    assert sum(len(keys) > 1 for keys in accepted) > 200
    assert digests(found) == BEFORE
