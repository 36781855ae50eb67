"""What counts: each kind of bad result is found, with its reason, and good ones are taken as the model's numbers."""

from __future__ import annotations

import io
import math

from federation.server.checks import MAX_EXAMPLES, accept_evaluation, accept_fit
from federation.wire.models import decode
from federation.wire.moments import are_moments, triangle_of

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
    "nothing": ([b""], "its bytes are not arrays ("),
    "garbage": ([b"\x93NUMPY garbage"], "its bytes are not arrays ("),
    "a pickle": ([pickled(np.array([{}, None]))], "its bytes are not arrays ("),
    "no arrays": ([], "it has no arrays"),
    "text": ([MODEL[0], np.array(["a", "b"])], "array 1 contains <U1, not numbers"),
    "complex": ([MODEL[0] * 1j, MODEL[1]], "array 0 contains complex64, not numbers"),
    "bool": ([MODEL[0] > 3, MODEL[1]], "array 0 contains bool, not numbers"),
    "nan": ([MODEL[0], np.array([0, math.nan])], "array 1 contains NaN or infinity"),
    "-inf": ([MODEL[0], np.array([0, -math.inf])], "array 1 contains NaN or infinity"),
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
    if examples != 0:  # who has nothing to test on says so
        assert reason(accept_evaluation, evaluation(0.5, examples)) == expected


def moments(number: int = 50, n: int = 5, num_classes: int = 3, dtype: str = "f2") -> list[np.ndarray]:
    """The moments of random features, as client_onnx.py makes them."""
    random = np.random.default_rng(number)
    x = np.hstack([random.random((number, n - 1)) * 6, np.ones((number, 1))])
    y = np.eye(num_classes)[random.integers(0, num_classes, number)]
    return [triangle_of(x.T @ x / number).astype(dtype), (x.T @ y / number).astype(dtype)]


@pytest.mark.parametrize(("number", "n", "num_classes"), [(1, 5, 3), (50, 5, 3), (3, 200, 100), (1000, 961, 2)])
def test_moments_of_images_are_taken(number, n, num_classes):
    model = moments(number, n, num_classes)
    assert are_moments(model)
    accept_fit(fit_result(model), [np.zeros_like(array) for array in model])


SPOILT = {
    "no mean": (lambda a, b: (a * 2, b * 2), "the mean of 1 is 2 there"),
    "nothing": (lambda a, b: (a * 0, b * 0), "the mean of 1 is 0 there"),
    "other classes": (lambda a, b: (a, b[::-1]), "each image has one class, but they say otherwise"),
    "fewer than none": (lambda a, b: (a, b + [[3, -3, 0]]), "each image has one class, but they say otherwise"),
    "negative": (lambda a, b: (a - 30 * (np.arange(len(a)) == 0), b), "their matrix is not positive definite"),
    "stretched": (lambda a, b: (a + 90 * (np.arange(len(a)) == 1), b), "their matrix is not positive definite"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_what_cannot_be_the_moments_of_any_images(kind):
    spoil, expected = SPOILT[kind]
    spoilt = [array.astype("f2") for array in spoil(*moments(dtype="f8"))]
    assert reason(accept_fit, fit_result(spoilt), moments()) == f"its moments are invalid: {expected}"


def test_which_models_are_moments():
    assert not any(map(are_moments, ([], MODEL, MODEL[::-1], [np.zeros(10), np.zeros((5, 2))], moments()[:1])))


@pytest.mark.parametrize("loss", [math.nan, -math.inf])
def test_a_loss_that_is_no_number(loss):
    good = evaluation(0.0, MAX_EXAMPLES)
    assert accept_evaluation(good) is good
    assert reason(accept_evaluation, evaluation(loss)) == f"its loss is {loss}"
