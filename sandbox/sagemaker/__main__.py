"""The stand-in's server: the two AWS protocols, and ``/_sandbox`` (:mod:`sandbox.sagemaker.control`)."""

from __future__ import annotations

import argparse
import itertools
import re
import signal
import threading
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from xml.sax.saxutils import escape

import cbor2
import msgspec

from sandbox.sagemaker.aws import ACCOUNT, Aws, Refused, Stamps
from sandbox.sagemaker.control import Control, seconds
from sandbox.sagemaker.fleet import Fleet

_SERVICES = {"GraniteServiceVersion20100801": "monitoring", "SageMaker": "sagemaker"}
_CREDENTIAL = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[^/ ]*?(\d{12})?[^/ \d]*/\d{8}/([a-z0-9-]+)/([a-z-]+)/aws4_request,"
)
_CBOR = "application/cbor"


@lru_cache(64)
def _json_range(stamps: range) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode([float(at) for at in stamps]))


def _json_stamps(value: object) -> object:
    assert isinstance(value, Stamps)
    if isinstance(value.seconds, range):
        return _json_range(value.seconds)
    if isinstance(value.seconds, int):
        return float(value.seconds)
    return [float(at) for at in value.seconds]


def _cbor_stamps(encoder: cbor2.CBOREncoder, value: object) -> None:
    assert isinstance(value, Stamps)
    if isinstance(value.seconds, int):
        encoder.encode(cbor2.CBORTag(1, value.seconds))
    else:
        encoder.encode([cbor2.CBORTag(1, at) for at in value.seconds])


class Handler(BaseHTTPRequestHandler):
    """Speaks JSON 1.0 and 1.1 with ``X-Amz-Target``, smithy's RPC v2 CBOR, and STS's query protocol."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    aws: Aws
    control: Control
    requests = itertools.count(1)

    def do_POST(self) -> None:
        """Serve AWS's calls and the control calls, which come with other methods too."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/_sandbox/"):
            self._control(body)
        else:
            self._aws(body)

    do_GET = do_PATCH = do_DELETE = do_POST  # noqa: N815

    def _aws(self, body: bytes) -> None:
        cbor = self.headers.get("smithy-protocol") == "rpc-v2-cbor"
        if cbor:
            _, _, target, _, operation = self.path.split("/")
        else:
            target, _, operation = self.headers.get("X-Amz-Target", "").partition(".")
        service = _SERVICES.get(target, "")
        if form := self.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded"):
            request = dict(parse_qsl(body.decode()))
            service, operation = "sts", request["Action"]
        try:
            region, account = self._authenticated(service)
            if not form:
                request = _plain(cbor2.loads(body)) if cbor else msgspec.json.decode(body or b"{}")
            answer, status, headers = self.aws.call(service, operation, region, request, account), 200, {}
        except Refused as error:
            answer, status = {"__type": error.code, "message": error.message}, error.status
            headers = {"x-amzn-query-error": f"{error.code};{'Sender' if status < 500 else 'Receiver'}"}
            if service != "monitoring":
                headers = {}
        except (KeyError, TypeError, ValueError) as error:
            # A member that AWS requires is missing or of another type; botocore does not let such a call out.
            answer, status, headers = {"__type": "SerializationException", "message": repr(error)}, 400, {}
        if form:
            self._send(status, "text/xml", _query_answer(operation, answer).encode(), headers)
        elif cbor:
            headers["smithy-protocol"] = "rpc-v2-cbor"
            self._send(status, _CBOR, cbor2.dumps(answer, default=_cbor_stamps), headers)
        else:
            kind = self.headers.get("Content-Type", "application/x-amz-json-1.1")
            self._send(status, kind, msgspec.json.encode(answer, enc_hook=_json_stamps), headers)

    def _authenticated(self, service: str) -> tuple[str, str]:
        """Region and account that the request is signed for. The signature itself is not checked: any key will do.

        A key's twelve digits are its account.
        """
        signed = self.headers.get("Authorization")
        if signed is None:
            raise Refused("MissingAuthenticationToken", "Request is missing Authentication Token", 403)
        scope = _CREDENTIAL.match(signed)
        if scope is None or "Signature=" not in signed or "X-Amz-Date" not in self.headers:
            raise Refused("IncompleteSignature", "Authorization header requires Credential and Signature", 400)
        if scope[3] != service:
            message = f"Credential should be scoped to correct service: '{service}'."
            raise Refused("SignatureDoesNotMatch", message, 403)
        return scope[2], scope[1] or ACCOUNT

    def _control(self, body: bytes) -> None:
        url = urlsplit(self.path)
        request = dict(parse_qsl(url.query)) | msgspec.json.decode(body or b"{}")
        try:
            answer = self.control.call(self.command, url.path.removeprefix("/_sandbox/"), request)
        except (KeyError, ValueError) as error:
            self._send(404, "application/json", msgspec.json.encode({"error": repr(error)}), {})
            return
        if not isinstance(answer, Iterator):
            self._send(200, "application/json", msgspec.json.encode(answer), {})
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in answer:
            data = msgspec.json.encode(line) + b"\n"
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")

    def _send(self, status: int, kind: str, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        headers |= {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "x-amzn-RequestId": str(next(self.requests)),
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing: the counters tell."""


def _query_answer(operation: str, answer: dict[str, Any]) -> str:
    """The answer of AWS's query protocol, which STS speaks."""

    def xml(value: Any) -> str:
        return (
            "".join(f"<{key}>{xml(item)}</{key}>" for key, item in value.items()) if isinstance(value, dict) else value
        )

    if "__type" in answer:
        return xml({"ErrorResponse": {"Error": {"Code": answer["__type"], "Message": escape(answer["message"])}}})
    return xml({f"{operation}Response": {f"{operation}Result": answer}})


def _plain(value: Any) -> Any:
    """CBOR's timestamps as Unix seconds, as JSON has them."""
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


class Server(ThreadingHTTPServer):
    """One thread a connection."""

    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.sagemaker", description="SageMaker and CloudWatch stand-in"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--endpoints", type=int, default=20)
    parser.add_argument("--regions", nargs="+", default=["us-east-1"])
    parser.add_argument("--history-from", type=seconds, default=0, metavar="ISO")
    parser.add_argument("--history-until", type=seconds, default=0, metavar="ISO")
    parser.add_argument("--live-from", type=seconds, default=0, metavar="ISO")
    parser.add_argument("--ingest-delay-s", type=float, default=0)
    parser.add_argument("--listing-lag-s", type=float, default=0)
    parser.add_argument("--now", type=seconds, metavar="ISO", help="a clock that stands still")
    options = vars(parser.parse_args())
    host, port = options.pop("host"), options.pop("port")
    fleet = Fleet(**options)
    Handler.aws = Aws(fleet)
    Handler.control = Control(fleet, Handler.aws)
    server = Server((host, port), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"ready http://{host}:{server.server_address[1]}", flush=True)
    server.serve_forever()
    server.server_close()


if __name__ == "__main__":
    main()
