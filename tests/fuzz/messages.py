"""Random messages to a running server: all unary RPCs over gRPC and binary HTTP, and frames of StreamMetrics.

    python -m tests.fuzz.messages [--seconds=N] [--seed=N]

Half of them are well-formed messages with odd values, half are such with bytes changed. The server may do
what they say or refuse it; it never answers INTERNAL, UNKNOWN or 5xx (501 apart, where a store lacks what is
asked for), and its memory does not grow with their number.
"""

import argparse
import http.client
import json
import random
import resource
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from runstream.v1 import experiments_pb2, metrics_pb2, registry_pb2, runs_pb2
from runstream_server.gateway.fields import is_map, is_repeated
from tests.doors import GrpcDoor, methods, path_of
from tests.stack import RunstreamServer, runstream_server

STREAM = "/runstream.v1.MetricService/StreamMetrics"
TIMEOUT = 60.0
"""Seconds; a call that takes them hangs."""
GROWTH = 64 << 20
"""Bytes by which a server may grow after the first tenth of the messages: what caches and allocators keep."""
_OURS = {
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""Codes that would be the server's fault; the last one says that it hangs."""
_NUMBERS = (
    *(0, 1, -1, 2, 127, 128, 1000, 2**31 - 1, -(2**31), 2**32 - 1),
    *(2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1),
)
_DOUBLES = (0.0, -0.0, 0.5, 1e308, 5e-324, float("nan"), float("inf"), -float("inf"))
_TEXTS = (
    *("", "0", "a", "x" * 300, "..", "../x", "a/../b", "%2e%2e/x", "\0", "é\u202e", "\U0001f600", "'"),
    *("0" * 32, "metrics.a > 1", "a DESC", "runs:/x/y", "file:///etc", "http://h/", "{}", "9" * 25),
    *("\n", "1e9", "-1"),
)


class Maker:
    """Makes messages from a seed."""

    def __init__(self, seed: int, known: list[str]) -> None:
        """known: ids and names of the server, so that some messages are about something."""
        self.random = random.Random(seed)
        self._texts = (*_TEXTS, *known * 8)

    def message(self, descriptor: Descriptor) -> bytes:
        """Return the bytes of a message of this type, or of what was one."""
        data = self.filled(descriptor, 0).SerializeToString()
        return self.changed(data) if self.random.random() < 0.5 else data

    def filled(self, descriptor: Descriptor, depth: int) -> Message:
        """Return a message with some of its fields set."""
        made: Message = GetMessageClass(descriptor)()
        for field in descriptor.fields:
            if self.random.random() < (0.6 if depth < 2 else 0.3) and depth < 6:
                self._fill(made, field, depth)
        return made

    def changed(self, data: bytes) -> bytes:
        """Return bytes that differ in a few places."""
        out = bytearray(data)
        for _ in range(self.random.randint(1, 4)):
            at = self.random.randint(0, len(out))
            match self.random.randrange(6):
                case 0 if at < len(out):
                    out[at] ^= 1 << self.random.randrange(8)
                case 1:
                    out[at:at] = self.random.randbytes(self.random.randint(1, 8))
                case 2:
                    del out[at : at + self.random.randint(1, 8)]
                case 3:
                    out[at:at] = out[self.random.randint(0, len(out)) :][:64]
                case 4:
                    out[at:at] = b"\xff" * self.random.randint(1, 10) + b"\x01"
                case _:
                    out[at:at] = b"\x0b" * self.random.randint(1, 200)  # groups without end
        return bytes(out)

    def _fill(self, made: Any, field: FieldDescriptor, depth: int) -> None:
        count = self.random.choice((1, 1, 2, 5))
        if field.message_type is not None and is_map(field):
            target = getattr(made, field.name)
            for _ in range(count):
                entry: Any = self.filled(field.message_type, depth + 1)
                if field.message_type.fields_by_name["value"].message_type is None:
                    target[entry.key] = entry.value
        elif field.message_type is not None:
            inner = [self.filled(field.message_type, depth + 1) for _ in range(count)]
            if is_repeated(field):
                getattr(made, field.name).extend(inner)
            else:
                getattr(made, field.name).CopyFrom(inner[0])
        elif is_repeated(field):
            getattr(made, field.name).extend(self._value(field) for _ in range(count))
        else:
            setattr(made, field.name, self._value(field))

    def _value(self, field: FieldDescriptor) -> Any:
        choose = self.random.choice
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
                return self.random.randbytes(choose((0, 1, 31, 32, 200)))
            case FieldDescriptor.CPPTYPE_STRING:
                return choose(self._texts)
            case FieldDescriptor.CPPTYPE_BOOL:
                return choose((True, False))
            case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
                return choose(_DOUBLES)
            case FieldDescriptor.CPPTYPE_ENUM:
                return choose((0, 1, 2, 3, 99, -1, 2**31 - 1))
        bits, signed = _WIDTHS[field.cpp_type]
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        return choose([number for number in _NUMBERS if low <= number <= high])


_WIDTHS = {
    FieldDescriptor.CPPTYPE_INT32: (32, True),
    FieldDescriptor.CPPTYPE_INT64: (64, True),
    FieldDescriptor.CPPTYPE_UINT32: (32, False),
    FieldDescriptor.CPPTYPE_UINT64: (64, False),
}


class Hunt:
    """Sends messages to a server and asserts what holds of each answer."""

    def __init__(self, server: RunstreamServer, channel: grpc.Channel, seed: int) -> None:
        self.sent: Counter[str] = Counter()
        """Answers by gRPC code, HTTP status and, of streams, code."""
        self._server = server
        self._channel = channel
        self._maker = Maker(seed, plant(channel))
        self._http = http.client.HTTPConnection(server.http.removeprefix("http://"), timeout=TIMEOUT)

    def round(self) -> None:
        """Send a message to every RPC by both doors, and a stream for every ten."""
        for at, (_, method) in enumerate(sorted(methods().items())):
            path, data = path_of(method), self._maker.message(method.input_type)
            self._grpc(path, data)
            self._binary(path, data)
            if at % 10 == 0:
                self._stream()

    def rss(self) -> int:
        """Return the bytes of memory of the server."""
        statm = Path(f"/proc/{self._server.process.pid}/statm").read_text()
        return int(statm.split()[1]) * resource.getpagesize()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _grpc(self, path: str, data: bytes) -> None:
        call: Any = self._channel.unary_unary(path)
        code = grpc.StatusCode.OK
        try:
            call(data, timeout=TIMEOUT)
        except grpc.RpcError as error:
            code = error.code()
            assert code not in _OURS, f"{path} {data.hex()}: {code} {error.details()}"
        self.sent[f"grpc {code.name}"] += 1

    def _binary(self, path: str, data: bytes) -> None:
        self._http.request("POST", path, data, {"Content-Type": "application/proto"})
        answer = self._http.getresponse()
        body = answer.read()
        ours = answer.status >= 500 and answer.status != 501
        assert not ours, f"{path} {data.hex()}: {answer.status} {body[:300]!r}"
        if answer.status >= 400:
            assert json.loads(body)["error_code"], f"{path} {data.hex()}"
        self.sent[f"http {answer.status}"] += 1

    def _stream(self) -> None:
        frames = list(self._frames())
        method: Any = self._channel.stream_stream(STREAM)
        code = grpc.StatusCode.OK
        try:
            for _ in method(iter(frames), timeout=TIMEOUT):
                pass
        except grpc.RpcError as error:
            code = error.code()
            shown = " ".join(frame.hex() for frame in frames)
            assert code not in _OURS, f"{STREAM} {shown}: {code} {error.details()}"
        self.sent[f"stream {code.name}"] += 1

    def _frames(self) -> Iterator[bytes]:
        """Yield frames: mostly one that opens a session, then some that fit to it, or do not."""
        maker = self._maker
        session = str(uuid.UUID(int=maker.random.getrandbits(128), version=4))
        if maker.random.random() < 0.8:
            run_id = maker.random.choice(("0" * 31 + "1", "a" * 32))
            run = metrics_pb2.RunDeclaration(run_id=run_id, create=True, experiment_id="0")
            opening = metrics_pb2.OpenSession(session_id=session, runs=[run])
            yield metrics_pb2.StreamMetricsRequest(open=opening).SerializeToString()
        for _ in range(maker.random.randint(1, 6)):
            request: Any = maker.filled(metrics_pb2.StreamMetricsRequest.DESCRIPTOR, 0)
            kind = request.WhichOneof("frame")
            if kind and maker.random.random() < 0.8:
                getattr(request, kind).session_id = session
            data = request.SerializeToString()
            yield maker.changed(data) if maker.random.random() < 0.4 else data


def plant(channel: grpc.Channel) -> list[str]:
    """Give a server an experiment, a run and a model, and return their ids and names."""
    door = GrpcDoor(channel)
    experiment = door.call(experiments_pb2.CreateExperimentRequest(name="fuzz")).experiment_id
    run = door.call(runs_pb2.CreateRunRequest(experiment_id=experiment)).run.info.run_id
    door.call(registry_pb2.CreateRegisteredModelRequest(name="fuzz model"))
    return [experiment, run, "fuzz model", "fuzz"]


def hunt(folder: Path, *, seed: int, rounds: int = 0, seconds: float = 0) -> tuple[Counter[str], int]:
    """Run some rounds, or for some time; return the answers counted, and the bytes the server grew by.

    Growth counts from the end of the first tenth. Raises: AssertionError.
    """
    with (
        runstream_server(folder / "server", f"sqlite:///{folder}/store.db") as server,
        grpc.insecure_channel(server.grpc) as channel,
    ):
        made = Hunt(server, channel, seed)
        started, done, before = time.monotonic(), 0, 0
        try:
            while done < rounds or time.monotonic() - started < seconds:
                made.round()
                done += 1
                if not before and 10 * done >= rounds and 10 * (time.monotonic() - started) >= seconds:
                    before = made.rss()
        finally:
            made.close()
        return made.sent, made.rss() - before


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Send random messages to a server.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sent, grown = hunt(Path(folder), seed=options.seed, seconds=options.seconds)
    print(f"{sent.total()} messages, seed {options.seed}; memory grew by {grown / (1 << 20):.1f} MiB")
    print(", ".join(f"{answer} {count}" for answer, count in sorted(sent.items())))
    assert grown < GROWTH, "the server's memory grows"


if __name__ == "__main__":
    main()
