"""The averages: weighted by examples, in float64, the same bits whatever comes first; metrics over those who know."""

from __future__ import annotations

import math
from fractions import Fraction

from federation.server.strategy import DeviceFedAvg, weighted_average

import numpy as np
import pytest
from fakes import FakeClient, fit_result
from flwr.common import parameters_to_ndarrays


def average(results: list[tuple[list[np.ndarray], int]]) -> list[np.ndarray]:
    sent = [(FakeClient("any"), fit_result(arrays, examples)) for arrays, examples in results]
    parameters, metrics = DeviceFedAvg().aggregate_fit(1, sent, [])
    assert metrics == {}
    return parameters_to_ndarrays(parameters)


def test_models_are_weighted_by_their_examples():
    (first, second) = average(
        [([np.array([0.0, 4.0]), np.array([[1.0]])], 1), ([np.array([4.0, 8.0]), np.array([[5.0]])], 3)]
    )
    assert first.tolist() == [3.0, 7.0] and second.tolist() == [[4.0]]


def test_no_results_no_model():
    assert DeviceFedAvg().aggregate_fit(1, [], [ConnectionError()]) == (None, {})


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        (("f2", "f2"), "f2"), (("f4", "f4"), "f4"), (("f8", "f8"), "f8"),
        # Of whole numbers that some clients' training made fractions of:
        (("i4", "f4"), "f8"), (("f8", "i8"), "f8"), (("u1", "f2"), "f2"), (("f4", "f8"), "f8"),
    ],
)  # fmt: skip
def test_the_type_of_an_average(dtypes, expected):
    (array,) = average([([np.array([1, 2], dtypes[0])], 1), ([np.array([2, 3], dtypes[1])], 1)])
    assert array.dtype == expected and array.tolist() == [1.5, 2.5]


@pytest.mark.parametrize("dtype", ["i1", "u1", "i4", "i8"])
def test_averages_of_whole_numbers_are_rounded_and_not_cut_off(dtype):
    (array,) = average([([np.array([1, 0, 100], dtype)], 1), ([np.array([2, 1, 101], dtype)], 3)])
    assert array.dtype == dtype and array.tolist() == [2, 1, 101]


def test_the_average_is_right_to_the_last_bit_of_float32():
    random = np.random.default_rng(0)
    models = [(10 ** random.uniform(-6, 6, 200) * random.choice([-1, 1], 200)).astype(np.float32) for _ in range(7)]
    examples = [int(number) for number in random.integers(1, 5000, 7)]
    (array,) = average([([model], number) for model, number in zip(models, examples)])
    for i, value in enumerate(array):
        exact = sum(Fraction(float(model[i])) * number for model, number in zip(models, examples)) / sum(examples)
        assert value == np.float32(float(exact))


def test_weighted_average():
    assert weighted_average([]) == {}
    assert weighted_average([(1, {"a": 1.0}), (3, {"a": 2.0, "b": 5})]) == {"a": 1.75, "b": 5.0}
    assert weighted_average([(1, {"a": 0.0}), (3, {"a": 1.0})]) == {"a": 0.75}
    assert weighted_average([(1, {"a": math.nan, "b": "x", "c": True}), (0, {"d": 1.0})]) == {}
