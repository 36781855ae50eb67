"""What counts: each kind of bad result is found, with its reason, and good ones are taken as the model's numbers."""

from __future__ import annotations

import io
import math

from federation.server.checks import MAX_EXAMPLES, accept_evaluation, accept_fit
from federation.wire.models import decode

import numpy as np
import pytest
from fakes import MODEL, encoded, evaluation, fit_result
from flwr.common import Parameters, parameters_to_ndarrays


def pickled(array: np.ndarray) -> bytes:
    """What a stranger would send in the hope that the server runs it."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


NO_MODELS = {  # tensors or arrays, and the reason
    "nothing": ([b""], "its bytes are no arrays ("),
    "garbage": ([b"\x93NUMPY garbage"], "its bytes are no arrays ("),
    "a pickle": ([pickled(np.array([{}, None]))], "its bytes are no arrays ("),
    "no arrays": ([], "it has no arrays"),
    "text": ([MODEL[0], np.array(["a", "b"])], "array 1 holds no numbers but <U1"),
    "complex": ([MODEL[0] * 1j, MODEL[1]], "array 0 holds no numbers but complex64"),
    "bool": ([MODEL[0] > 3, MODEL[1]], "array 0 holds no numbers but bool"),
    "nan": ([MODEL[0], np.array([0, math.nan])], "array 1 has NaN or infinity in it"),
    "-inf": ([MODEL[0], np.array([0, -math.inf])], "array 1 has NaN or infinity in it"),
}
MISFITS = {
    "fewer arrays": (MODEL[:1], "it has 1 arrays, the global model 2"),
    "more arrays": ([*MODEL, MODEL[0]], "it has 3 arrays, the global model 2"),
    "other shape": ([MODEL[0].T, MODEL[1]], "array 0 is of shape (3, 2), the global model's of (2, 3)"),
    "one for all": ([MODEL[0], np.ones(1)], "array 1 is of shape (1,), the global model's of (2,)"),
}


def sent(parts) -> Parameters:
    return Parameters(parts, "numpy.ndarray") if not parts or isinstance(parts[0], bytes) else encoded(parts)


def reason(accept, *arguments) -> str:
    with pytest.raises(ValueError) as error:
        accept(*arguments)
    return str(error.value)


@pytest.mark.parametrize("kind", NO_MODELS)
def test_what_is_no_model(kind):
    parts, expected = NO_MODELS[kind]
    assert reason(decode, sent(parts)).startswith(expected)


@pytest.mark.parametrize("kind", MISFITS)
def test_a_model_that_does_not_fit(kind):
    arrays, expected = MISFITS[kind]
    assert reason(accept_fit, fit_result(arrays), MODEL) == expected


def test_a_fit_in_the_models_type_is_taken_as_it_is():
    result = fit_result(MODEL)
    assert accept_fit(result, MODEL).parameters is result.parameters


@pytest.mark.parametrize("model_dtype", ["f2", "f4", "f8", "i1", "i8", "u1"])
@pytest.mark.parametrize("dtype", ["f2", "f8", ">f4", "i1", "i4", ">i2", "u1", "u8"])
def test_a_fit_in_another_type_of_numbers_is_taken_in_the_models(dtype, model_dtype):
    model = [array.astype(model_dtype) for array in (*MODEL, np.zeros((0, 3)), np.array(1))]
    result = fit_result([array.astype(dtype) for array in model], 7, loss=0.5)
    before = result.parameters
    accepted = accept_fit(result, model)
    assert result.parameters is before and (accepted.num_examples, accepted.metrics) == (7, {"loss": 0.5})
    for array, expected in zip(parameters_to_ndarrays(accepted.parameters), model, strict=True):
        assert (array.shape, array.dtype) == (expected.shape, expected.dtype)
        assert (array == expected).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("dtype", "number", "model_dtype"),
    [("f8", 1e300, "f4"), ("f8", -1e39, "f4"), ("f4", 1e38, "f2"), ("i8", 70000, "f2")],
)
def test_numbers_that_the_models_type_has_no_room_for(dtype, number, model_dtype):
    model = [np.ones(2, model_dtype)]
    expected = f"some of its numbers are out of range for the global model's {model[0].dtype}"
    assert reason(accept_fit, fit_result([np.array([1, number], dtype)]), model) == expected


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("dtype", "numbers", "model_dtype", "accepted_dtype"),
    [
        ("f8", [1e-300, 0.1, 3.4028234e38], "f4", "f4"),
        ("i8", [2**62 + 1, -(2**63)], "f4", "f4"),
        ("u8", [2**63 - 1], "i8", "i8"),
        ("f4", [3.0, -1e6], "i4", "i4"),
        ("f4", [0.5, 3.0], "i4", "f4"),  # what the model's type of whole numbers has no room for stays
        ("f8", [0.1, 255.6], "u1", "f8"),
        ("f4", [3.0, -1e30], "i4", "f4"),
        ("i8", [128], "i1", "i8"),
        ("i1", [-1], "u8", "i1"),
    ],
)
def test_numbers_are_taken_as_near_as_can_be(dtype, numbers, model_dtype, accepted_dtype):
    accepted = accept_fit(fit_result([np.array(numbers, dtype)]), [np.ones(len(numbers), model_dtype)])
    (array,) = parameters_to_ndarrays(accepted.parameters)
    assert array.dtype == accepted_dtype and array.tolist() == np.array(numbers, accepted_dtype).tolist()


@pytest.mark.parametrize("examples", [0, -1, MAX_EXAMPLES + 1, 2**62])
def test_a_number_of_examples_that_nobody_has(examples):
    expected = f"it claims {examples} examples"
    assert reason(accept_fit, fit_result(MODEL, examples), MODEL) == expected
    assert reason(accept_evaluation, evaluation(0.5, examples)) == expected


@pytest.mark.parametrize("loss", [math.nan, -math.inf])
def test_a_loss_that_is_no_number(loss):
    good = evaluation(0.0, MAX_EXAMPLES)
    assert accept_evaluation(good) is good
    assert reason(accept_evaluation, evaluation(loss)) == f"its loss is {loss}"
