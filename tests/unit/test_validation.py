"""What counts: each kind of bad result is found, with its reason, and good ones pass."""

from __future__ import annotations

import io
import math

from federation.server.validation import (
    MAX_EXAMPLES,
    as_number,
    decode,
    problem_with_evaluation,
    problem_with_fit,
    problem_with_model,
)

import numpy as np
import pytest
from fakes import MODEL, encoded, evaluation, fit_result
from flwr.common import Parameters


def pickled(array: np.ndarray) -> bytes:
    """Return what a stranger would send in the hope that the server runs it."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def changed(dtype: object = None, **values: float) -> list[np.ndarray]:
    """Return MODEL with its second array of another type, or with other numbers in it."""
    array = MODEL[1].astype(dtype or np.float32)
    for place, value in enumerate(values.values()):
        array[place] = value
    return [MODEL[0], array]


BYTES = {
    "nothing": ([b""], "its bytes are no arrays ("),
    "garbage": ([b"\x93NUMPY garbage"], "its bytes are no arrays ("),
    "cut off": ([encoded(MODEL).tensors[0][:-1]], "its bytes are no arrays ("),
    "a pickle": ([pickled(np.array([{}, None]))], "its bytes are no arrays ("),
    "one of two": ([encoded(MODEL).tensors[0], b"x"], "its bytes are no arrays ("),
    "no arrays": ([], "it has no arrays"),
}
ARRAYS = {
    "text": ([MODEL[0], np.array(["a", "b"])], "array 1 holds no numbers but <U1"),
    "bytes": ([np.array([b"a"])], "array 0 holds no numbers but |S1"),
    "complex": (changed(np.complex64), "array 1 holds no numbers but complex64"),
    "bool": (changed(bool), "array 1 holds no numbers but bool"),
    "dates": ([np.array(["2024-01-01"], "datetime64[D]")], "array 0 holds no numbers but datetime64[D]"),
    "records": ([np.zeros(2, [("a", "f4")])], "array 0 holds no numbers but [('a', '<f4')]"),
    "nan": (changed(a=0, b=math.nan), "array 1 has NaN or infinity in it"),
    "inf": (changed(a=math.inf), "array 1 has NaN or infinity in it"),
    "-inf": (changed(a=0, b=-math.inf), "array 1 has NaN or infinity in it"),
}
MISFITS = {
    "fewer arrays": (MODEL[:1], "it has 1 arrays, the global model 2"),
    "more arrays": ([*MODEL, MODEL[0]], "it has 3 arrays, the global model 2"),
    "other shape": (
        [MODEL[0].T, MODEL[1]],
        "array 0 is float32 of shape (3, 2), the global model's float32 of shape (2, 3)",
    ),
    "one number for all": (
        [MODEL[0], np.ones(1, np.float32)],
        "array 1 is float32 of shape (1,), the global model's float32 of shape (2,)",
    ),
    "float64": (changed(np.float64), "array 1 is float64 of shape (2,), the global model's float32 of shape (2,)"),
    "integers": (changed(np.int32), "array 1 is int32 of shape (2,), the global model's float32 of shape (2,)"),
    "other byte order": (changed(">f4"), "array 1 is >f4 of shape (2,), the global model's float32 of shape (2,)"),
}


@pytest.mark.parametrize("kind", BYTES)
def test_bytes_that_are_no_model(kind):
    tensors, reason = BYTES[kind]
    parameters = Parameters(tensors, "numpy.ndarray")
    with pytest.raises(ValueError) as error:
        decode(parameters)
    assert str(error.value).startswith(reason)
    assert problem_with_model(parameters) == problem_with_model(parameters, MODEL) == str(error.value)


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_that_are_no_model(kind):
    arrays, reason = ARRAYS[kind]
    with pytest.raises(ValueError) as error:
        decode(encoded(arrays))
    assert str(error.value) == reason
    assert problem_with_model(encoded(arrays)) == reason


@pytest.mark.parametrize("kind", [*ARRAYS, *MISFITS])
def test_a_fit_with_arrays_that_do_not_fit(kind):
    arrays, reason = {**ARRAYS, **MISFITS}[kind]
    assert problem_with_fit(fit_result(arrays), arrays if kind in ARRAYS else MODEL) == reason


@pytest.mark.parametrize("kind", MISFITS)
def test_an_initial_model_may_have_any_shape(kind):
    assert problem_with_model(encoded(MISFITS[kind][0])) is None


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i1", "i8", "u1", "u8"])
def test_a_good_model_is_decoded_as_it_was(dtype):
    model = [array.astype(dtype) for array in (*MODEL, np.zeros((0, 3)), np.array(1))]
    decoded = decode(encoded(model))
    for array, original in zip(decoded, model):
        assert (array.shape, array.dtype) == (original.shape, original.dtype)
        assert (array == original).all()
    assert len(decoded) == len(model)
    assert problem_with_fit(fit_result(model), model) is None


@pytest.mark.parametrize("examples", [0, -1, MAX_EXAMPLES + 1, 2**62])
def test_a_number_of_examples_that_nobody_has(examples):
    assert problem_with_fit(fit_result(MODEL, examples), MODEL) == f"it claims {examples} examples"
    assert problem_with_evaluation(evaluation(0.5, examples)) == f"it claims {examples} examples"


@pytest.mark.parametrize("examples", [1, 900, MAX_EXAMPLES])
def test_a_number_of_examples_that_somebody_may_have(examples):
    assert problem_with_fit(fit_result(MODEL, examples), MODEL) is None
    assert problem_with_evaluation(evaluation(0.0, examples)) is None


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number(loss):
    assert problem_with_evaluation(evaluation(loss)) == f"its loss is {loss}"


@pytest.mark.parametrize("value", [0, 1, -2.5, 2**63])
def test_numbers(value):
    assert as_number(value) == value


@pytest.mark.parametrize("value", [None, True, False, "1", b"1", math.nan, math.inf, -math.inf, [1.0]])
def test_no_numbers(value):
    assert as_number(value) is None
