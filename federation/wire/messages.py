"""What server and clients say to each other, as bytes that have been the same in all of Flower since 1.0.

A question is a task, such as "fit", and Flower's instruction, such as a FitIns; the answer is a result, such as a
FitRes. Apart from federation/client/stream.py, only this file uses parts of Flower that are not public: `flwr.proto`
and `flwr.common.serde`.
"""

from __future__ import annotations

from typing import Any, Callable, Union

from federation.wire.handshake import Refused

from flwr.common import (
    Code,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    GetPropertiesIns,
    GetPropertiesRes,
    Parameters,
    Status,
    serde,
)
from flwr.proto.transport_pb2 import ClientMessage, ServerMessage

Instruction = Union[GetPropertiesIns, GetParametersIns, FitIns, EvaluateIns]
Result = Union[GetPropertiesRes, GetParametersRes, FitRes, EvaluateRes]
Answer = Callable[[str, Instruction], Result]  # from a task and its instruction


def write_question(task: str, instruction: Instruction) -> ServerMessage:
    """Message with a question."""
    field = f"{task}_ins"
    return ServerMessage(**{field: getattr(serde, f"{field}_to_proto")(instruction)})


def read_question(message: ServerMessage) -> tuple[str, Any]:
    """Task and Flower's instruction in a message; the server's goodbye, "reconnect", has None for an instruction.

    Raises ValueError if Flower knows no such task.
    """
    field = message.WhichOneof("msg")  # such as fit_ins
    if field is None:
        raise ValueError("it sent a request that this version of Flower does not know")
    task = field[: -len("_ins")]
    if task == "reconnect":
        return task, None
    return task, getattr(serde, f"{field}_from_proto")(getattr(message, field))


def write_answer(task: str, result: Result) -> ClientMessage:
    """Message with the result of a task; with a failure if it cannot be sent."""
    field = f"{task}_res"
    encode = getattr(serde, f"{field}_to_proto")
    try:
        return ClientMessage(**{field: encode(result)})
    except (TypeError, ValueError) as error:  # for instance a metric that is larger than 64 bits
        return ClientMessage(**{field: encode(failure(task, f"cannot send its result ({error})"))})


def read_answer(task: str, answer: bytes) -> Result:
    """Result of a task in an answer, as bytes; raises ValueError if it belongs to another task."""
    message, field = ClientMessage.FromString(answer), f"{task}_res"
    if message.WhichOneof("msg") != field:
        raise ValueError(f"its reply is not a reply to {task}")
    return getattr(serde, f"{field}_from_proto")(getattr(message, field))


def failure(task: str, reason: str, code: Code = Code.FIT_NOT_IMPLEMENTED) -> Result:
    """Result of a task that failed, as Flower has it, with the reason."""
    # Apart from OK, every version of Flower knows only the codes for a method that is not implemented.
    status = Status(code, reason)
    if task == "get_properties":
        return GetPropertiesRes(status, {})
    if task == "get_parameters":
        return GetParametersRes(status, Parameters([], ""))
    if task == "fit":
        return FitRes(status, Parameters([], ""), 0, {})
    return EvaluateRes(status, 0.0, 0, {})


def respond(question: bytes, answer: Answer) -> bytes:
    """Answer to a question, both as bytes; `answer(task, instruction)` knows the result."""
    task, instruction = read_question(ServerMessage.FromString(question))
    try:
        result = answer(task, instruction)
    except Refused as refused:
        print(refused)
        result = failure(task, f"{refused}")
    return write_answer(task, result).SerializeToString()
