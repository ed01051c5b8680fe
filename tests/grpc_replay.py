"""Golden cases of Google's gRPC services: the exchanges of :mod:`tests.replay`, in protobuf's JSON."""

from __future__ import annotations

import importlib
import time
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any
from unittest.mock import patch

import grpc
import time_machine
from google.protobuf import any_pb2, json_format
from google.rpc import error_details_pb2, status_pb2  # noqa: F401 - what the details of a status may hold
from grpc_status import rpc_status

from tests.replay import Replay

# Service → where its messages are, named after its methods.
MESSAGES = {
    "google.monitoring.v3.MetricService": "google.cloud.monitoring_v3",
    "google.cloud.aiplatform.v1.EndpointService": "google.cloud.aiplatform_v1",
}


class GrpcReplay(Replay, grpc.GenericRpcHandler):  # type: ignore[misc]
    """A gRPC server that answers each exchange once; use it as a context manager.

    A request has ``path`` (``/service/method``) and ``json``; a response ``json``, or ``status``, ``message`` and
    ``details`` of a refusal.
    """

    def _listen(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(4), handlers=[self])
        self.url = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def service(self, handler_call_details: Any) -> Any:
        """How to serve a method, whichever it is."""
        path = handler_call_details.method
        _, service, method = path.split("/")
        module = importlib.import_module(MESSAGES[service])

        def answer(message: Any, context: grpc.ServicerContext) -> Any:
            asked = {"path": path, "json": json_format.MessageToDict(message), "headers": {}}
            response = self._response(asked)
            if "status" not in response:
                return json_format.ParseDict(response["json"], getattr(module, f"{method}Response").pb()())
            code = grpc.StatusCode[response["status"]] if response["status"] != 501 else grpc.StatusCode.UNIMPLEMENTED
            details = [json_format.ParseDict(detail, any_pb2.Any()) for detail in response.get("details", ())]
            said = response.get("message") or response.get("text")
            status = status_pb2.Status(code=code.value[0], message=said, details=details)
            return context.abort_with_status(rpc_status.to_status(status))

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=getattr(module, f"{method}Request").pb().FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def __enter__(self) -> GrpcReplay:
        self._server.start()
        # gRPC compares its deadlines with a clock that no test can move.
        self._clock = patch("grpc._channel._deadline", lambda timeout: _real_time() + timeout)
        self._clock.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clock.stop()
        self._server.stop(0).wait()


def _real_time() -> float:
    escape = time_machine.escape_hatch
    return escape.time.time() if escape.is_travelling() else time.time()
