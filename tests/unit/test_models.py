"""Models on the wire: digests, half precision, differences; what they cost, what goes wrong, what stays exact."""

from __future__ import annotations

import zlib

from federation.wire.models import (
    DIFFERENCE,
    DIGEST,
    HALF_PRECISION,
    LACKS,
    WHOLE,
    Inbound,
    Lacks,
    Outbound,
    decode,
    digest,
    lacks_the_model,
    size,
)

import numpy as np
import pytest
from fakes import MODEL, OK, encoded
from flwr.common import Code, FitIns, FitRes, Parameters, Status, ndarray_to_bytes, parameters_to_ndarrays

RANDOM = np.random.default_rng(0)
LIKE_A_MODEL = [RANDOM.normal(scale=0.05, size=shape).astype(np.float32) for shape in ((64, 32, 3, 3), (64,), (10, 64))]


def same(arrays, others) -> bool:
    """Whether all arrays are the same, bit for bit, of the same types and shapes."""
    pairs = list(zip(arrays, others, strict=True))
    return all((a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()) for a, b in pairs)


def halved(arrays) -> list[np.ndarray]:
    """What is left of a model's arrays in half precision."""
    with np.errstate(over="ignore"):
        return [a.astype(np.float16).astype(np.float32) if a.ndim > 1 else a for a in arrays]


def arrive_at(client: Inbound, model, half_precision=True) -> Outbound:
    """Send a model to a client, which then has it."""
    outbound = Outbound(model, half_precision)
    client.receive(outbound.shortest)
    return outbound


def test_a_model_without_half_precision_is_flowers_own():
    outbound = Outbound(MODEL, half_precision=False)
    assert outbound.shortest is outbound.whole and outbound.whole == encoded(MODEL)
    client = Inbound()
    assert client.receive(outbound.whole) is outbound.whole
    assert client.answer(encoded(MODEL)) == encoded(MODEL)


@pytest.mark.parametrize("half_precision", [False, True])
def test_the_digest_stands_for_the_model_that_was_sent(half_precision):
    client = Inbound()
    outbound = arrive_at(client, LIKE_A_MODEL, half_precision)
    assert outbound.digest.tensor_type == DIGEST and size(FitIns(outbound.digest, {})) == 32
    received = parameters_to_ndarrays(client.receive(outbound.digest))
    assert same(received, halved(LIKE_A_MODEL) if half_precision else LIKE_A_MODEL)
    assert digest(outbound.digest) == digest(outbound.shortest)


@pytest.mark.parametrize("half_precision", [False, True])
def test_a_client_lacks_any_other_model(half_precision):
    other = [MODEL[0], MODEL[1] + np.float32(2**-20)]
    client, outbound = Inbound(), Outbound(MODEL, half_precision)
    with pytest.raises(Lacks):  # a new client
        client.receive(outbound.digest)
    arrive_at(client, other, half_precision)
    with pytest.raises(Lacks):
        client.receive(outbound.digest)
    arrive_at(client, MODEL, half_precision)
    client.receive(outbound.digest)
    client.forget()
    with pytest.raises(Lacks):
        client.receive(outbound.digest)


def test_a_new_model_is_sent_at_once_and_later_only_to_who_lacks_it():
    outbound = Outbound(MODEL, half_precision=True, is_new=True)
    assert outbound.forms(outbound.whole, is_sent_again=False) == [outbound.shortest]
    assert outbound.forms(outbound.whole, is_sent_again=True) == [outbound.digest, outbound.shortest]
    outbound.is_new = False
    assert outbound.forms(outbound.whole, is_sent_again=False) == [outbound.digest, outbound.shortest]
    own = encoded(MODEL)  # equal, but a strategy's own for some client: next time, it may be another one
    assert outbound.forms(own, is_sent_again=False) == [own]


def test_what_half_precision_costs():
    client = Inbound()
    outbound = arrive_at(client, LIKE_A_MODEL)
    trained = [array + RANDOM.normal(scale=0.003, size=array.shape).astype(np.float32) for array in LIKE_A_MODEL]
    whole = size(FitIns(outbound.whole, {}))
    assert size(FitIns(outbound.shortest, {})) < 0.5 * whole
    assert size(FitRes(OK, client.answer(encoded(trained)), 1, {})) < 0.5 * whole


def test_a_difference_is_added_to_the_servers_own_model():
    client = Inbound()
    arrive_at(client, LIKE_A_MODEL)
    received = halved(LIKE_A_MODEL)
    trained = [array + RANDOM.normal(scale=1e-4, size=array.shape).astype(np.float32) for array in received]
    sent = client.answer(encoded(trained))
    assert sent.tensor_type == DIFFERENCE
    changes = [(new - old).astype(np.float16) for new, old in zip(trained, received)]
    expected = [old + change if old.ndim > 1 else new for old, new, change in zip(LIKE_A_MODEL, trained, changes)]
    assert same(decode(sent, LIKE_A_MODEL), expected)
    # The rounding is relative to the change, so much smaller than what float16 takes from the weights themselves.
    exact = [np.float64(old) + new - was for old, new, was in zip(LIKE_A_MODEL, trained, received)]
    lost = max(np.abs(a - b).max() for a, b in zip(expected, exact))
    assert lost < max(np.abs(change).max() for change in changes[::2]) * 2**-10
    assert lost < max(np.abs(a - b).max() for a, b in zip(LIKE_A_MODEL, received)) / 50


@pytest.mark.parametrize("number", [65_520, -1e6, np.finfo(np.float32).max])
def test_arrays_beyond_the_range_of_float16_stay_as_they_are(number):
    model = [np.array([[number, 1 / 3]], np.float32), np.array([[1 / 3]], np.float32)]
    client = Inbound()
    outbound = arrive_at(client, model)
    assert same(parameters_to_ndarrays(client.receive(outbound.digest)), [model[0], halved(model)[1]])
    zeros = [np.zeros((1, 2), np.float32), np.zeros((1, 1), np.float32)]
    arrive_at(client, zeros)  # and so do those whose change is beyond it
    assert same(decode(client.answer(encoded(model)), zeros), [model[0], halved(model)[1]])


@pytest.mark.parametrize(
    "array",
    [
        np.array(1.5, np.float32),
        np.zeros((0, 3), np.float32),
        np.arange(6, dtype=np.float64).reshape(2, 3) / 7,
        np.arange(6).reshape(2, 3),
        (np.arange(6).reshape(2, 3) / 7).astype(">f4"),
        np.array([[True, False]]),
        np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    ],
    ids=["one number", "no numbers", "float64", "int64", "big-endian", "bool", "by columns"],
)
def test_other_arrays_arrive_as_they_are(array):
    client = Inbound()
    outbound = arrive_at(client, [array])
    assert same(parameters_to_ndarrays(client.receive(outbound.digest)), [array])
    if array.dtype.kind != "b":
        assert same(decode(client.answer(encoded([array])), [array]), [array])


def test_a_model_in_float16_is_trained_in_float32():
    model = [np.array([[1 / 3, 2]], np.float16)]
    client = Inbound()
    outbound = arrive_at(client, model)
    assert same(parameters_to_ndarrays(client.receive(outbound.digest)), [model[0].astype(np.float32)])
    assert same(decode(client.answer(encoded(model)), model), model)


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ([MODEL[0] + 1], "it has 1 arrays, the global model 2"),
        ([*MODEL, MODEL[0]], "it has 3 arrays, the global model 2"),
        ([MODEL[0] * np.nan, MODEL[1]], "array 0 has NaN or infinity in it"),
        ([MODEL[0], MODEL[1] * np.inf], "array 1 has NaN or infinity in it"),
        ([np.array([["a"]]), MODEL[1]], "array 0 holds no numbers but <U1"),
        ([MODEL[0].astype(complex), MODEL[1]], "array 0 holds no numbers but complex128"),
    ],
)
def test_results_that_are_no_model_stay_what_they_are(new, expected):
    client = Inbound()
    arrive_at(client, MODEL)
    sent = client.answer(encoded(new))
    if len(new) == len(MODEL):
        with pytest.raises(ValueError) as error:
            decode(sent, MODEL)
        assert str(error.value) == expected
    else:  # for the server to say
        assert sent == encoded(new)


@pytest.mark.parametrize("shape", [(3, 2), (1, 3), (6,), ()])
def test_a_result_of_another_shape_travels_as_it_is(shape):
    new = np.full(shape, 1 / 7, np.float32)
    client = Inbound()
    arrive_at(client, MODEL)
    assert same(decode(client.answer(encoded([new, MODEL[1]])), MODEL), [new, MODEL[1]])


@pytest.mark.parametrize("dtype", ["f8", ">f4", "f2", "i8", "u1"])
def test_a_result_of_another_type_travels_as_a_difference_too(dtype):
    model = [MODEL[0] / 7, MODEL[1]]
    client = Inbound()
    arrive_at(client, model)
    new = [(array + 1 / 3).astype(dtype) for array in model]
    arrays = decode(client.answer(encoded(new)), model)
    change = (new[0] - halved(model)[0]).astype(np.float16)
    assert same(arrays[:1], [model[0] + change])
    assert arrays[1].tolist() == new[1].tolist()  # of one dimension


def test_bytes_that_are_no_arrays_are_left_to_the_server():
    client = Inbound()
    arrive_at(client, MODEL)
    garbage = Parameters([b"garbage"] * 2, WHOLE)
    assert client.answer(garbage) == garbage


def packed(array: np.ndarray) -> bytes:
    return zlib.compress(ndarray_to_bytes(array))


@pytest.mark.parametrize(
    "tensor",
    [b"", b"garbage", packed(MODEL[0])[:-9], zlib.compress(b"garbage"), zlib.compress(bytes(100_000_000))],
    ids=["nothing", "garbage", "cut off", "garbage, compressed", "a bomb"],
)
def test_bytes_that_are_no_difference(tensor):
    with pytest.raises(ValueError, match=r"^its bytes are no arrays \("):
        decode(Parameters([tensor, packed(MODEL[1])], DIFFERENCE), MODEL)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_difference_with_another_number_of_arrays(count):
    with pytest.raises(ValueError, match=f"^it has {count} arrays, the global model 2$"):
        decode(Parameters([packed(MODEL[0])] * count, DIFFERENCE), MODEL)


@pytest.mark.parametrize("shape", [(1, 3), (3, 2), (6,), ()])
def test_a_difference_of_another_shape_is_not_spread_over_the_array(shape):
    change = np.ones(shape, np.float16)
    arrays = decode(Parameters([packed(change), packed(MODEL[1])], DIFFERENCE), MODEL)
    assert arrays[0].shape == shape


@pytest.mark.parametrize("kind", [DIFFERENCE, HALF_PRECISION, DIGEST])
def test_a_first_model_is_whole(kind):
    with pytest.raises(ValueError):
        decode(Parameters([packed(MODEL[0])], kind))


@pytest.mark.parametrize("form", [WHOLE, "", "somebody's own"])
def test_other_servers_call_whole_models_as_they_like(form):
    client = Inbound()
    sent = Parameters(encoded(MODEL).tensors, form)
    assert client.receive(sent) is sent
    assert client.answer(encoded(MODEL)) == encoded(MODEL)


def test_who_lacks_the_model():
    assert lacks_the_model(FitRes(Status(Code.FIT_NOT_IMPLEMENTED, LACKS), encoded([]), 0, {}))
    assert not lacks_the_model(FitRes(OK, encoded(MODEL), 1, {}))
    assert not lacks_the_model("a goodbye")
    assert size("a goodbye") == 0
