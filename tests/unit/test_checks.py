"""What counts: each kind of bad result is found, with its reason, and good ones pass."""

from __future__ import annotations

import io
import math

from federation.server.checks import MAX_EXAMPLES, check_evaluation, check_fit
from federation.wire.handshake import as_number
from federation.wire.models import decode, in_type

import numpy as np
import pytest
from fakes import MODEL, OK, encoded, evaluation, fit_result
from flwr.common import FitRes, Parameters, parameters_to_ndarrays


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
        "array 0 is of shape (3, 2), the global model's of (2, 3)",
    ),
    "one number for all": (
        [MODEL[0], np.ones(1, np.float32)],
        "array 1 is of shape (1,), the global model's of (2,)",
    ),
}


def problem(check, *arguments) -> str | None:
    """Return the reason for which `check` raises, None if it does not."""
    try:
        check(*arguments)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", BYTES)
def test_bytes_that_are_no_model(kind):
    tensors, reason = BYTES[kind]
    parameters = Parameters(tensors, "numpy.ndarray")
    with pytest.raises(ValueError) as error:
        decode(parameters)
    assert str(error.value).startswith(reason)
    assert problem(check_fit, FitRes(OK, parameters, 1, {}), MODEL) == str(error.value)


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_that_are_no_model(kind):
    arrays, reason = ARRAYS[kind]
    assert problem(decode, encoded(arrays)) == reason


@pytest.mark.parametrize("kind", [*ARRAYS, *MISFITS])
def test_a_fit_with_arrays_that_do_not_fit(kind):
    arrays, reason = {**ARRAYS, **MISFITS}[kind]
    assert problem(check_fit, fit_result(arrays), arrays if kind in ARRAYS else MODEL) == reason


@pytest.mark.parametrize("kind", MISFITS)
def test_an_initial_model_may_have_any_shape(kind):
    assert problem(decode, encoded(MISFITS[kind][0])) is None


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i1", "i8", "u1", "u8"])
def test_a_good_model_is_decoded_as_it_was(dtype):
    model = [array.astype(dtype) for array in (*MODEL, np.zeros((0, 3)), np.array(1))]
    decoded = decode(encoded(model))
    for array, original in zip(decoded, model):
        assert (array.shape, array.dtype) == (original.shape, original.dtype)
        assert (array == original).all()
    assert len(decoded) == len(model)
    assert problem(check_fit, fit_result(model), model) is None


@pytest.mark.parametrize("model_dtype", ["f2", "f4", "f8", "i1", "i8", "u1"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", ">f8", "i1", "i4", "i8", ">i2", "u1", "u8"])
def test_a_fit_in_another_type_of_numbers_is_taken_in_the_models(dtype, model_dtype):
    model = [array.astype(model_dtype) for array in (*MODEL, np.zeros((0, 3)), np.array(1))]
    result = fit_result([array.astype(dtype) for array in model])
    assert problem(check_fit, result, model) is None
    for array, expected in zip(parameters_to_ndarrays(result.parameters), model, strict=True):
        assert (array.shape, array.dtype) == (expected.shape, expected.dtype)
        assert (array == expected).all()


def test_a_fit_in_the_models_type_is_not_touched():
    result = fit_result(MODEL)
    parameters = result.parameters
    assert problem(check_fit, result, MODEL) is None
    assert result.parameters is parameters
    assert in_type(MODEL[0], np.dtype(np.float32)) is MODEL[0]


TOO_LARGE = [
    ("f8", 1e300, "f4"), ("f8", -1e39, "f4"), ("f4", 1e38, "f2"), ("i8", 70000, "f2"), ("f8", 2.0**63, "i8"),
    ("f4", -1e30, "i4"), ("i8", 128, "i1"), ("i1", -1, "u8"), ("u8", 2**63, "i8"), ("f8", 255.6, "u1"),
]  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("dtype", "number", "model_dtype"), TOO_LARGE)
def test_numbers_that_the_models_type_has_no_room_for(dtype, number, model_dtype):
    model = [np.ones(2, model_dtype)]
    reason = f"some of its numbers are out of range for the global model's {model[0].dtype}"
    assert problem(check_fit, fit_result([np.array([1, number], dtype)]), model) == reason


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("dtype", "numbers", "model_dtype", "expected"),
    [
        ("f8", [0.4, 0.6, -0.6, 254.9], "i4", [0, 1, -1, 255]),  # rounded, not cut off
        ("f8", [255.4, -0.4], "u1", [255, 0]),
        ("f8", [1e-300, 0.1, 3.4028234e38], "f4", [0, np.float32(0.1), 3.4028234e38]),
        ("i8", [2**62 + 1, -(2**63)], "f4", [2.0**62, -(2.0**63)]),
        ("u8", [2**63 - 1], "i8", [2**63 - 1]),
    ],
)
def test_numbers_are_taken_as_near_as_the_models_type_has_them(dtype, numbers, model_dtype, expected):
    result = fit_result([np.array(numbers, dtype)])
    assert problem(check_fit, result, [np.ones(len(numbers), model_dtype)]) is None
    (array,) = parameters_to_ndarrays(result.parameters)
    assert array.tolist() == np.array(expected, model_dtype).tolist()


@pytest.mark.parametrize("examples", [0, -1, MAX_EXAMPLES + 1, 2**62])
def test_a_number_of_examples_that_nobody_has(examples):
    assert problem(check_fit, fit_result(MODEL, examples), MODEL) == f"it claims {examples} examples"
    assert problem(check_evaluation, evaluation(0.5, examples)) == f"it claims {examples} examples"


@pytest.mark.parametrize("examples", [1, 900, MAX_EXAMPLES])
def test_a_number_of_examples_that_somebody_may_have(examples):
    assert problem(check_fit, fit_result(MODEL, examples), MODEL) is None
    assert problem(check_evaluation, evaluation(0.0, examples)) is None


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number(loss):
    assert problem(check_evaluation, evaluation(loss)) == f"its loss is {loss}"


@pytest.mark.parametrize("value", [0, 1, -2.5, 2**63])
def test_numbers(value):
    assert as_number(value) == value


@pytest.mark.parametrize("value", [None, True, False, "1", b"1", math.nan, math.inf, -math.inf, [1.0]])
def test_no_numbers(value):
    assert as_number(value) is None
