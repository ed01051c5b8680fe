"""AirisHook against one ``requests.post`` a datapoint, as the architecture document has it, and the same on a Session.

``python -m benchmarks.delivery``. All deliver the same points to a sink, a process of its own that does no more than
decompress, parse and count them. The client runs in a process of its own too, whose CPU time and memory are read.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from airflow_provider_airis.records import Metric, MetricsBody
from sandbox.process import Server

POINTS = 1_000_000
FEW = 10_000
POSTS = {"post": 400, "session": 2_000, "single": 20_000}
ENDPOINTS = 20
METRICS = ("invocations", "modellatency", "overheadlatency", "cpuutilization", "memoryutilization", "diskutilization")
STATISTICS = ("Sum", "Average", "Maximum", "p50", "p90", "p99")
TIMESTAMPS = 200
MINUTE = 60_000
MIB = 1 << 20


def points() -> Iterator[Metric]:
    """Points as CloudWatch pages them, without an end: some 200 timestamps of a series, then of the next one."""
    draw = random.Random(1)
    start = 1_700_000_000_000 // MINUTE * MINUTE
    for page in count():
        for endpoint in range(ENDPOINTS):
            name = f"fraud-detector-{endpoint:02}"
            for metric in METRICS:
                for statistic in STATISTICS:
                    tags = {
                        "endpoint_name": name,
                        "variant_name": "AllTraffic",
                        "cloud_provider": "aws",
                        "service": "sagemaker",
                        "region": "us-east-1",
                        "statistic": statistic,
                        "period_s": "60",
                    }
                    first = start + page * TIMESTAMPS * MINUTE
                    for at in range(first, first + TIMESTAMPS * MINUTE, MINUTE):
                        yield Metric(f"aws-sagemaker-{name}", metric, draw.random() * 1e5, "Microseconds", tags, at)


def run() -> dict[str, Any]:
    """Measure and print the table."""
    with Server("benchmarks.delivery", "sink") as sink:
        clients = {name: _client(name, number, sink.url) for name, number in POSTS.items()}
        before = _cpu_s(sink.process.pid)
        hook = clients["hook"] = _client("hook", POINTS, sink.url)
        sink_s = _cpu_s(sink.process.pid) - before
    for name, title in (
        ("post", "requests.post a datapoint"),
        ("session", "the same on a Session"),
        ("single", "AirisHook, single calls"),
        ("hook", "AirisHook.ingest"),
    ):
        measured = clients[name]
        print(
            f"{title:28} {measured['points']:>9,} points  {measured['points_per_second']:>9,}/s "
            f"{measured['points_per_cpu_second']:>9,}/s of one core  {measured['bytes_per_point']:>6.1f} bytes a point"
        )
    against = {
        f"times_{name}": round(hook["points_per_second"] / clients[name]["points_per_second"], 1) for name in POSTS
    }
    against |= {
        f"times_{name}_cpu": round(hook["points_per_cpu_second"] / clients[name]["points_per_cpu_second"], 1)
        for name in POSTS
    }
    grown = round((hook["peak_bytes"] - hook["peak_bytes_few"]) / MIB, 1)
    print(
        f"{'against the Session':28} {against['times_session']:,} times, of CPU {against['times_session_cpu']:,} times"
    )
    print(f"{'against the document':28} {against['times_post']:,} times, of CPU {against['times_post_cpu']:,} times")
    batches = round(hook["points_per_second"] / clients["single"]["points_per_second"], 1)
    print(f"{'against single calls':28} {batches:,} times")
    print(f"{'client CPU':28} {hook['cpu_s_per_million']} s a million points, of it the source {hook['source_s']} s")
    print(f"{'sink CPU':28} {sink_s:.2f} s a million points")
    print(f"{'peak memory':28} {grown} MiB more for {POINTS:,} points than for {FEW:,}")
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        **{name: {key: value for key, value in found.items() if "peak" not in key} for name, found in clients.items()},
        **against,
        "sink_cpu_s_per_million": round(sink_s, 2),
        "memory_growth_mib": grown,
    }


# The clients


def _client(way: str, number: int, url: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.delivery", way, str(number), url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent)
    if done.returncode:
        raise RuntimeError(f"{way} failed:\n{done.stdout}{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measure(deliver: Callable[[Iterator[Metric]], int], number: int) -> dict[str, Any]:
    cpu, wall = time.process_time(), time.perf_counter()
    sent = deliver(islice(points(), number))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {
        "points": number,
        "points_per_second": round(number / wall),
        "points_per_cpu_second": round(number / cpu),
        "cpu_s_per_million": round(cpu / number * 1e6, 2),
        "bytes_per_point": round(sent / number, 1),
    }


def _posting(way: str, number: int, url: str) -> dict[str, Any]:
    import requests

    post = requests.post if way == "post" else requests.Session().post

    def deliver(metrics: Iterator[Metric]) -> int:
        sent = 0
        for metric in metrics:
            body = {
                "timestamp": metric.timestamp,
                "source": metric.source,
                "metrics": [
                    {"name": metric.name, "value": metric.value, "unit": metric.unit, "tags": metric.tags},
                ],
            }
            answer = post(f"{url}/api/v1/metrics/ingest", json=body, timeout=30)
            answer.raise_for_status()
            sent += len(answer.request.body or b"")
        return sent

    return _measure(deliver, number)


def _single(number: int, url: str) -> dict[str, Any]:
    """Each point of a time and source of its own goes by a request of its own, to a hub without batches."""
    from airflow_provider_airis.hooks.airis import AirisHook

    os.environ["AIRFLOW_CONN_SINK"] = json.dumps({"conn_type": "airis", "host": f"{url}/four", "password": "no-secret"})
    with AirisHook("sink") as hook:

        def deliver(metrics: Iterator[Metric]) -> int:
            apart = (replace(metric, timestamp=metric.timestamp + n) for n, metric in enumerate(metrics))
            summary = hook.ingest(apart)
            assert (summary.points, summary.calls) == (number, number), summary
            return summary.bytes

        return _measure(deliver, number)


def _hooking(number: int, url: str) -> dict[str, Any]:
    from airflow_provider_airis.hooks.airis import AirisHook

    os.environ["AIRFLOW_CONN_SINK"] = json.dumps({"conn_type": "airis", "host": url, "password": "no-secret"})
    with AirisHook("sink") as hook:

        def deliver(metrics: Iterator[Metric]) -> int:
            summary = hook.ingest(metrics)
            assert summary.points == metrics_left, summary
            return summary.bytes

        metrics_left = FEW
        _measure(deliver, FEW)
        few = _peak()
        metrics_left = number
        measured = _measure(deliver, number)
    cpu = time.process_time()
    for _ in islice(points(), number):
        pass
    source_s = round(time.process_time() - cpu, 2)
    return measured | {"peak_bytes_few": few, "peak_bytes": _peak(), "source_s": source_s}


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# The sink


class _Sink(asyncio.Protocol):
    """Speaks just as much HTTP as is needed to answer with the number of points that came."""

    _lines = msgspec.json.Decoder(MetricsBody)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = bytearray()
        self.wanted = 0

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while len(self.buffer) >= self.wanted and (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.buffer[:end]).lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
            self.wanted = end + 4 + length
            if len(self.buffer) < self.wanted:
                return
            body = bytes(self.buffer[end + 4 : self.wanted])
            del self.buffer[: self.wanted]
            self.wanted = 0
            if b"content-encoding: gzip" in head:
                body = zlib.decompress(body, wbits=31)
            status = b"404 Not Found" if b" /four/api/v1/metrics/batch" in head else b"200 OK"
            answer = b'{"accepted": %d}' % sum(len(self._lines.decode(line).metrics) for line in body.splitlines())
            self.transport.write(  # type: ignore[attr-defined]
                b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                % (status, len(answer), answer)
            )


async def _sink() -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    server = await loop.create_server(_Sink, "127.0.0.1", 0)
    print(f"ready http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await ended.wait()


def main(arguments: list[str]) -> None:
    """Print the figures; the sink and the clients run by the same module."""
    match arguments:
        case ["sink", *_]:
            asyncio.run(_sink())
        case ["hook", number, url]:
            print(json.dumps(_hooking(int(number), url)))
        case ["single", number, url]:
            print(json.dumps(_single(int(number), url)))
        case [way, number, url]:
            print(json.dumps(_posting(way, int(number), url)))
        case _:
            run()


if __name__ == "__main__":
    main(sys.argv[1:])
