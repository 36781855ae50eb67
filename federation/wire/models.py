"""What a model looks like on the wire: whole, as a digest, or in half precision. For both sides.

Flower's `Parameters` say in their `tensor_type` which of these they are:

numpy.ndarray   the arrays, in Flower's own form, which every client understands
digest          the SHA-256 of a model that the client has already
half precision  the arrays; float16 stands for float32
difference      the result of a fit; float16 is what to add to the model's float32

In half precision, arrays of one dimension (biases, BatchNorm's statistics) stay float32, as do those with numbers
beyond float16's range. The change in a fit is small, and float16 rounds relative to that, not to the weight. The bytes
of the last two forms are reordered and compressed: the exponents are much alike.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Any, Sequence

from federation.wire import MAX_MESSAGE_BYTES

import numpy as np
from flwr.common import (
    Code,
    NDArrays,
    Parameters,
    bytes_to_ndarray,
    ndarray_to_bytes,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)

WHOLE, DIGEST, HALF_PRECISION, DIFFERENCE = "numpy.ndarray", "digest", "half precision", "difference"
LACKS_MODEL = Code.GET_PARAMETERS_NOT_IMPLEMENTED  # the status of a client's answer to a digest that it does not know
HEADER = 1000  # bytes, at the most, with which NumPy describes an array


class Lacks(Exception):
    """The client does not have the model with the digest that it received."""


class Outbound:
    """The global model, ready to be sent in each form; while it `is_new`, no client can have it."""

    def __init__(self, model: NDArrays, half_precision: bool, is_new: bool = False) -> None:
        self.whole = ndarrays_to_parameters(model)
        self.shortest = self.whole
        if half_precision:
            self.shortest = Parameters([_pack(_halved(array)) for array in model], HALF_PRECISION)
        self.digest = Parameters([digest(self.shortest)], DIGEST)
        self.is_new = is_new

    def forms(self, parameters: Parameters) -> list[Parameters]:
        """Return the forms of a strategy's `parameters` to send one after the other, until the client has the model."""
        if parameters is not self.whole:  # a strategy may have another model for some client
            return [parameters]
        return [self.shortest] if self.is_new else [self.digest, self.shortest]


class Inbound:
    """The model that a client received or sent last."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Free the memory."""
        self.model = Parameters([], WHOLE)
        self.digest = b""
        self.is_half = False

    def receive(self, parameters: Parameters) -> Parameters:
        """The received model in Flower's form; raises Lacks if it is the digest of a model that is not here."""
        if parameters.tensor_type == DIGEST:
            if digest(parameters) != self.digest:
                raise Lacks
            return self.model
        self.forget()
        self.digest = digest(parameters)
        self.is_half = parameters.tensor_type == HALF_PRECISION
        if self.is_half:
            arrays = [_widened(_unpack(tensor, MAX_MESSAGE_BYTES)) for tensor in parameters.tensors]
            parameters = ndarrays_to_parameters(arrays)
        self.model = parameters
        return parameters

    def answer(self, result: Parameters) -> Parameters:
        """The result of a fit, in the form that matches the one of the received model."""
        if not self.is_half or len(result.tensors) != len(self.model.tensors):
            return result
        pairs = zip(result.tensors, self.model.tensors)
        return Parameters([_pack(_change(*map(bytes_to_ndarray, pair))) for pair in pairs], DIFFERENCE)


def digest(parameters: Parameters) -> bytes:
    """The SHA-256 of a model, in whichever form it is sent."""
    if parameters.tensor_type == DIGEST:
        return parameters.tensors[0]
    sha256 = hashlib.sha256()
    for tensor in parameters.tensors:
        sha256.update(tensor)
    return sha256.digest()


def size(message: Any) -> int:
    """How many bytes the model in one of Flower's messages has, such as a FitIns; 0 if there is none."""
    return sum(map(len, message.parameters.tensors)) if hasattr(message, "parameters") else 0


def lacks_the_model(result: Any) -> bool:
    """Whether a result, such as a FitRes, says that its client does not have the model with that digest."""
    return hasattr(result, "status") and result.status.code == LACKS_MODEL


def decode(parameters: Parameters, model: Sequence[np.ndarray] = ()) -> NDArrays:
    """The arrays in `parameters`; a difference is added to `model`.

    Raises ValueError, with the reason, if they are not a model's.
    """
    try:
        if parameters.tensor_type == DIFFERENCE and model:
            most = HEADER + max(array.nbytes for array in model)
            arrays = [_sum(_unpack(tensor, most), old) for tensor, old in zip(parameters.tensors, model)]
        else:
            arrays = parameters_to_ndarrays(parameters)
    except Exception as error:  # bytes from the network: NumPy may raise any error
        raise ValueError(f"its bytes are not arrays ({type(error).__name__})") from error
    for i, array in enumerate(arrays):
        if array.dtype.kind not in "fiu":
            raise ValueError(f"array {i} contains {array.dtype}, not numbers")
        if not np.isfinite(array).all():
            raise ValueError(f"array {i} contains NaN or infinity")
    if not arrays:
        raise ValueError("it has no arrays")
    return arrays


def decode_result(parameters: Parameters, model: NDArrays) -> Parameters:
    """The result of a fit of the global `model`: whole, with the same number of arrays, of the same shapes and types.

    Raises ValueError, with the reason, if it does not match the model.
    """
    if len(parameters.tensors) != len(model):
        raise ValueError(f"it has {len(parameters.tensors)} arrays, the global model {len(model)}")
    arrays = decode(parameters, model)
    for i, (array, expected) in enumerate(zip(arrays, model)):
        if array.shape != expected.shape:
            raise ValueError(f"array {i} is of shape {array.shape}, the global model's of {expected.shape}")
    if parameters.tensor_type == WHOLE and all(new.dtype == old.dtype for new, old in zip(arrays, model)):
        return parameters
    return ndarrays_to_parameters([in_models_type(array, expected.dtype) for array, expected in zip(arrays, model)])


def in_models_type(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The result of a fit or an average in the type of numbers that the global model has.

    If the model has whole numbers, an array that this type cannot hold (with fractions, above all) stays unchanged:
    rounding would lose small steps in each round. Raises ValueError if a floating-point type cannot hold a number.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        converted = array.astype(dtype, copy=False)
    if dtype.kind != "f":
        return converted if (converted == array).all() else array
    if not np.isfinite(converted).all():
        raise ValueError(f"some of its numbers are out of range for the global model's {dtype}")
    return converted


def _halved(array: np.ndarray) -> np.ndarray:
    """An array in float16, if it is one of those sent so and all of its numbers are in range; or else unchanged."""
    if array.dtype != np.float32 or array.ndim < 2:
        return array
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    return half if np.isfinite(half).all() else array


def _widened(array: np.ndarray) -> np.ndarray:
    """An array in float32 if it is in float16, which stands for that on this wire."""
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _change(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """What to add to the old array, in float16; the new array if that is impossible."""
    if new.dtype.kind in "fiu" and new.shape == old.shape and old.dtype == np.float32:
        with np.errstate(over="ignore", invalid="ignore"):  # from a training that went wrong
            change = (new - old).astype(np.float32)
            change = change.astype(np.float16) if new.dtype == np.float16 else _halved(change)
        if change.dtype == np.float16:
            return change
    return _widened(new)


def _sum(change: np.ndarray, old: np.ndarray) -> np.ndarray:
    """The new array, given what `_change` made of it."""
    return old + change if change.dtype == np.float16 and change.shape == old.shape else change


def _pack(array: np.ndarray) -> bytes:
    """An array compressed: the first bytes of all its numbers, then the second ones, and so on."""
    by_number = np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(-1, array.itemsize)
    by_place = np.ascontiguousarray(by_number.T).reshape(-1).view(array.dtype).reshape(array.shape)
    # No search for repetitions, which weights do not have: it would take twice as long, and more bytes.
    compressor = zlib.compressobj(level=1, strategy=zlib.Z_HUFFMAN_ONLY)
    return compressor.compress(ndarray_to_bytes(by_place)) + compressor.flush()


def _unpack(packed: bytes, most: int) -> np.ndarray:
    """The array in these bytes; raises any error if they are not an array of at most `most` bytes."""
    by_place = bytes_to_ndarray(zlib.decompressobj().decompress(packed, most))
    by_number = by_place.reshape(-1).view(np.uint8).reshape(by_place.itemsize, -1).T
    return np.ascontiguousarray(by_number).reshape(-1).view(by_place.dtype).reshape(by_place.shape)
