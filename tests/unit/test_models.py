"""Models on the wire: digests, half precision, differences; what they cost, what goes wrong, what stays exact."""

from __future__ import annotations

import zlib

from federation.wire.messages import failure, read_answer, write_answer
from federation.wire.models import (
    DIFFERENCE,
    DIGEST,
    LACKS_MODEL,
    WHOLE,
    Inbound,
    Lacks,
    Outbound,
    decode,
    decode_result,
    digest,
    lacks_the_model,
    size,
)

import numpy as np
import pytest
from fakes import MODEL, OK, encoded
from flwr.common import Code, FitIns, FitRes, Parameters, ndarray_to_bytes, parameters_to_ndarrays

RANDOM = np.random.default_rng(0)
LIKE_A_MODEL = [RANDOM.normal(scale=0.05, size=shape).astype(np.float32) for shape in ((64, 32, 3, 3), (64,), (10, 64))]


def same(arrays, others) -> bool:
    """Whether all arrays are the same, bit for bit, of the same types and shapes."""
    pairs = list(zip(arrays, others, strict=True))
    return all((a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()) for a, b in pairs)


def halved(arrays) -> list[np.ndarray]:
    """What is left of a model's arrays in half precision."""
    return [a.astype(np.float16).astype(np.float32) if a.ndim > 1 else a for a in arrays]


def arrive_at(client: Inbound, model, half_precision=True) -> Outbound:
    """Send a model to a client, which then has it."""
    outbound = Outbound(model, half_precision)
    client.receive(outbound.shortest)
    return outbound


@pytest.mark.parametrize("half_precision", [False, True])
def test_the_digest_stands_for_the_model_that_was_sent_last(half_precision):
    client, outbound = Inbound(), Outbound(LIKE_A_MODEL, half_precision)
    assert (outbound.shortest is outbound.whole) != half_precision
    with pytest.raises(Lacks):  # a new client
        client.receive(outbound.digest)
    client.receive(outbound.shortest)
    assert outbound.digest.tensor_type == DIGEST and size(FitIns(outbound.digest, {})) == 32
    received = parameters_to_ndarrays(client.receive(outbound.digest))
    assert same(received, halved(LIKE_A_MODEL) if half_precision else LIKE_A_MODEL)
    assert digest(outbound.digest) == digest(outbound.shortest)
    arrive_at(client, [LIKE_A_MODEL[0] + np.float32(2**-10), *LIKE_A_MODEL[1:]], half_precision)
    with pytest.raises(Lacks):
        client.receive(outbound.digest)
    client.receive(outbound.shortest)
    client.forget()
    with pytest.raises(Lacks):
        client.receive(outbound.digest)


def test_a_new_model_is_sent_at_once_and_later_only_to_who_lacks_it():
    outbound = Outbound(MODEL, half_precision=True, is_new=True)
    assert outbound.forms(outbound.whole) == [outbound.shortest]
    outbound.is_new = False
    assert outbound.forms(outbound.whole) == [outbound.digest, outbound.shortest]
    own = encoded(MODEL)  # equal, but a strategy's own for some client: next time, it may be another one
    assert outbound.forms(own) == [own]


def test_a_difference_is_small_and_added_to_the_servers_own_model():
    client = Inbound()
    outbound = arrive_at(client, LIKE_A_MODEL)
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
    assert lost < max(np.abs(a - b).max() for a, b in zip(LIKE_A_MODEL, received)) / 50
    whole = size(FitIns(outbound.whole, {}))
    assert size(FitIns(outbound.shortest, {})) < 0.5 * whole and size(FitRes(OK, sent, 1, {})) < 0.5 * whole


def test_a_model_that_is_in_float16_itself_takes_no_more_bytes():
    model, new = ([RANDOM.random(shape).astype(np.float16) for shape in ((5000,), (10, 64))] for _ in range(2))
    client = Inbound()
    outbound = arrive_at(client, model)
    answer = client.answer(encoded(new))
    assert max(size(FitIns(sent, {})) for sent in (outbound.shortest, answer)) < size(FitIns(outbound.whole, {}))
    for array, expected in zip(parameters_to_ndarrays(decode_result(answer, model)), new, strict=True):
        assert array.dtype == np.float16 and np.abs(array - expected).max() < 2e-3


@pytest.mark.parametrize("number", [65_520, -1e6, np.finfo(np.float32).max])
def test_arrays_beyond_the_range_of_float16_stay_as_they_are(number):
    model = [np.array([[number, 1 / 3]], np.float32), np.array([[1 / 3]], np.float32)]
    expected = [model[0], halved(model[1:])[0]]
    client = Inbound()
    outbound = arrive_at(client, model)
    assert same(parameters_to_ndarrays(client.receive(outbound.digest)), expected)
    zeros = [np.zeros((1, 2), np.float32), np.zeros((1, 1), np.float32)]
    arrive_at(client, zeros)  # and so do those whose change is beyond it
    assert same(decode(client.answer(encoded(model)), zeros), expected)


OTHER_ARRAYS = {
    "one number": np.array(1.5, np.float32),
    "no numbers": np.zeros((0, 3), np.float32),
    "float64": np.arange(6, dtype=np.float64).reshape(2, 3) / 7,
    "int64": np.arange(6).reshape(2, 3),
    "big-endian": (np.arange(6).reshape(2, 3) / 7).astype(">f4"),
    "by columns": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
}


@pytest.mark.parametrize("array", OTHER_ARRAYS.values(), ids=OTHER_ARRAYS)
def test_other_arrays_arrive_as_they_are(array):
    client = Inbound()
    outbound = arrive_at(client, [array])
    assert same(parameters_to_ndarrays(client.receive(outbound.digest)), [array])
    assert same(decode(client.answer(encoded([array])), [array]), [array])


ODD_RESULTS = {
    "NaN": [MODEL[0] * np.nan, MODEL[1]],
    "text": [np.array([["a"]]), MODEL[1]],
    "complex": [MODEL[0] * 1j, MODEL[1]],
    "one array": [MODEL[0]],
    "other shape": [MODEL[0].T, MODEL[1]],
}


def reason(parameters: Parameters) -> str:
    with pytest.raises(ValueError) as error:
        decode_result(parameters, MODEL)
    return str(error.value)


@pytest.mark.parametrize("new", ODD_RESULTS.values(), ids=ODD_RESULTS)
def test_results_that_are_no_model_stay_what_they_are_for_the_server_to_say(new):
    client = Inbound()
    arrive_at(client, MODEL)
    assert reason(client.answer(encoded(new))) == reason(encoded(new))


def packed(array: np.ndarray) -> bytes:
    return zlib.compress(ndarray_to_bytes(array))


@pytest.mark.parametrize(
    "tensor",
    [b"", b"garbage", packed(MODEL[0])[:-9], zlib.compress(b"garbage"), zlib.compress(bytes(100_000_000))],
    ids=["nothing", "garbage", "cut off", "garbage, compressed", "a bomb"],
)
def test_bytes_that_are_no_difference(tensor):
    with pytest.raises(ValueError, match=r"^its bytes are not arrays \("):
        decode(Parameters([tensor, packed(MODEL[1])], DIFFERENCE), MODEL)
    with pytest.raises(ValueError, match="^it has 1 arrays, the global model 2$"):
        decode_result(Parameters([tensor], DIFFERENCE), MODEL)
    with pytest.raises(ValueError):  # a first model is whole
        decode(Parameters([packed(MODEL[0])], DIFFERENCE))
    row = packed(np.ones((1, 3), np.float16))  # is not added to each row
    assert decode(Parameters([row, packed(MODEL[1])], DIFFERENCE), MODEL)[0].shape == (1, 3)


@pytest.mark.parametrize("form", [WHOLE, "", "somebody's own"])
def test_other_servers_call_whole_models_as_they_like(form):
    client = Inbound()
    sent = Parameters(encoded(MODEL).tensors, form)
    assert client.receive(sent) is sent
    assert client.answer(encoded(MODEL)) == encoded(MODEL)


@pytest.mark.parametrize("task", ["fit", "evaluate"])
def test_who_lacks_the_model(task):
    for code, expected in ((LACKS_MODEL, True), (Code.FIT_NOT_IMPLEMENTED, False)):
        sent = write_answer(task, failure(task, "it does not have that model", code)).SerializeToString()
        assert lacks_the_model(read_answer(task, sent)) == expected
    assert not lacks_the_model("a goodbye") and size("a goodbye") == 0
