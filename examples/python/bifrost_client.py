"""A small client of Bifrost in Python, over the stubs that grpcio-tools makes from crates/wire/proto.

It shows how little a client in any language needs: one address of any node, the messages of log.proto, and three rules:

* an append ends as committed, not appended, or unknown; only "not appended" may be sent again without asking;
* a read goes on at the LSN after the last one that was delivered, with whatever node answers;
* a gRPC status speaks of the transport; what the log decided is in the response.
"""

from __future__ import annotations

import dataclasses
import queue
from collections.abc import Iterable, Iterator

import grpc
from bifrost.v1 import log_pb2 as pb
from bifrost.v1 import log_pb2_grpc, log_server_pb2, values_pb2

# A response is at most this large: one batch of 16 MiB and its frame.
MESSAGE_BYTES_MAX = 17 << 20

# Longer than a failover of the log, and than the node's own 20 s: whoever waits less may miss how an append ended.
DEADLINE_SECONDS = 25.0


class Refused(Exception):
    """The log refused the request; nothing was done. `why` is the name of the refusal, `detail` its message."""

    def __init__(self, error: pb.LogError):
        self.why = error.WhichOneof("error") or "unknown refusal"
        self.detail = getattr(error, self.why, None)
        super().__init__(f"{self.why} {self.detail}".strip())


class NotAppended(Exception):
    """The batch is not in the log and never will be. `why` says what to do; see NotAppended in log.proto."""

    def __init__(self, cause: pb.NotAppended):
        self.why = cause.WhichOneof("why") or "unknown reason"
        self.detail = getattr(cause, self.why, None)
        if self.why == "refused":
            refusal = Refused(self.detail)
            self.why, self.detail = refusal.why, refusal.detail
        super().__init__(f"{self.why} {self.detail}".strip())


class Unknown(Exception):
    """The batch may be in the log. `append_id` is for `BifrostClient.resolve`, unless it is None."""

    def __init__(self, append_id: str | None):
        self.append_id = append_id
        super().__init__(f"the outcome of the append is unknown; its id is {append_id}")


@dataclasses.dataclass(frozen=True)
class Record:
    """A record to append. `keys` is None, a number, a pair (a, b), or a range(first, last + 1)."""

    payload: bytes
    keys: int | tuple[int, int] | range | None = None

    def to_message(self) -> pb.NewRecord:
        message = pb.NewRecord(payload=self.payload, payload_crc32c=crc32c(self.payload))
        if isinstance(self.keys, range):
            message.keys.range.first, message.keys.range.last = self.keys.start, self.keys.stop - 1
        elif isinstance(self.keys, tuple):
            message.keys.pair.first, message.keys.pair.second = self.keys
        elif self.keys is not None:
            message.keys.single.key = self.keys
        return message


@dataclasses.dataclass(frozen=True)
class Gap:
    """There is nothing to deliver in [start, end); `lost` tells lost records from trimmed ones."""

    start: int
    end: int
    lost: bool


@dataclasses.dataclass(frozen=True)
class CaughtUp:
    """Everything below `tail` was delivered, and no more is known of."""

    tail: int


class BifrostClient:
    """Logs, through one node. A log is named by its name (str) or its id (int)."""

    def __init__(self, address: str, deadline: float = DEADLINE_SECONDS):
        self.deadline = deadline
        self.channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
                ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
            ],
        )
        self.stub = log_pb2_grpc.LogServiceStub(self.channel)

    def __enter__(self) -> BifrostClient:
        return self

    def __exit__(self, *_) -> None:
        self.channel.close()

    def create_log(self, name: str | None = None, copies: int | None = None) -> pb.LogDescription:
        """Makes a log. `copies` on that many nodes, or as the cluster sees fit."""
        request = pb.CreateLogRequest(name=name)
        if copies is not None:
            request.replication.add(scope=values_pb2.SCOPE_NODE, count=copies)
        return _answer(self.stub.CreateLog(request, timeout=self.deadline), "created")

    def get_log(self, log: str | int) -> pb.LogDescription:
        """The chain of a log."""
        return _answer(self.stub.GetLog(pb.GetLogRequest(log=_ref(log)), timeout=self.deadline), "log")

    def list_logs(self, page_size: int = 0) -> Iterator[pb.LogSummary]:
        """All logs in order of their ids, page by page."""
        request = pb.ListLogsRequest(page_size=page_size)
        while True:
            page = _answer(self.stub.ListLogs(request, timeout=self.deadline), "page")
            yield from page.logs
            if not page.HasField("next_after"):
                return
            request.after = page.next_after

    def delete_log(self, log: str | int) -> int:
        """Deletes a log and its records for good; returns the id that it had."""
        return _answer(self.stub.DeleteLog(pb.DeleteLogRequest(log=_ref(log)), timeout=self.deadline), "deleted").log

    def append(self, log: str | int, records: Iterable[Record]) -> range:
        """Appends one batch, all or nothing; returns its LSNs. Raises NotAppended or Unknown."""
        request = pb.AppendRecordsRequest(log=_ref(log), records=[record.to_message() for record in records])
        return _lsns(self.stub.Append(request, timeout=self.deadline))

    def append_stream(self, log: str | int) -> AppendStream:
        """A stream of batches with many in flight; use it in a `with` block."""
        return AppendStream(self.stub, _ref(log))

    def read(
        self, log: str | int, start: int | None = None, until: int | None = None, key: int | None = None
    ) -> Iterator[pb.LogRecord | Gap | CaughtUp]:
        """Records, gaps and caught-up notes from `start` (the first that is not trimmed) to below `until` (for ever)."""
        request = pb.ReadLogRequest(log=_ref(log), until=until)
        # `from` is a word of Python.
        if start is not None:
            setattr(request, "from", start)
        if key is not None:
            request.filter.key.CopyFrom(log_server_pb2.KeyFilter.Key(key=key))
        call = self.stub.Read(request)
        try:
            for response in call:
                yield from _events(response)
        finally:
            call.cancel()

    def find_tail(self, log: str | int, cached: bool = False) -> int:
        """The first LSN that is not written."""
        kind = pb.TAIL_KIND_CACHED if cached else pb.TAIL_KIND_LINEARIZABLE
        request = pb.FindTailRequest(log=_ref(log), kind=kind)
        return _answer(self.stub.FindTail(request, timeout=self.deadline), "tail").lsn

    def trim(self, log: str | int, up_to: int) -> int:
        """Drops records up to and including an LSN; returns the trim point that now holds."""
        request = pb.TrimLogRequest(log=_ref(log), up_to=up_to)
        return _answer(self.stub.Trim(request, timeout=self.deadline), "trimmed").trim_point

    def resolve(self, append_id: str) -> range | None:
        """What became of an unknown append: its LSNs, or None if it is not in the log and never will be."""
        response = self.stub.Resolve(pb.ResolveRequest(append_id=append_id), timeout=self.deadline)
        outcome = response.WhichOneof("outcome")
        if outcome == "committed":
            return range(response.committed.first_lsn, response.committed.last_lsn + 1)
        if outcome == "absent":
            return None
        if outcome == "unknowable":
            raise Unknown(append_id)
        raise Refused(response.refused)


class AppendStream:
    """Batches in order, many in flight. `send` does not wait; the outcomes come in the order of the batches.

    An outcome is a range of LSNs, or a NotAppended or Unknown that was not raised. Each batch stands for itself: one that
    failed does not stop those behind it. Who needs them to stop waits for each outcome, or sends them as one batch.
    """

    def __init__(self, stub: log_pb2_grpc.LogServiceStub, log: pb.LogRef):
        self._outgoing: queue.SimpleQueue[pb.AppendStreamRequest | None] = queue.SimpleQueue()
        self._outgoing.put(pb.AppendStreamRequest(open=pb.AppendStreamRequest.Open(log=log)))
        self._replies = stub.AppendStream(iter(self._outgoing.get, None))
        opened = next(self._replies)
        if opened.WhichOneof("message") == "refused":
            raise Refused(opened.refused)

    def send(self, records: Iterable[Record]) -> None:
        batch = pb.AppendStreamRequest.Append(records=[record.to_message() for record in records])
        self._outgoing.put(pb.AppendStreamRequest(append=batch))

    def done(self) -> None:
        """Nothing more will be sent; `outcomes` ends after what was."""
        self._outgoing.put(None)

    def outcomes(self) -> Iterator[range | NotAppended | Unknown]:
        for reply in self._replies:
            try:
                yield _lsns(reply.appended)
            except (NotAppended, Unknown) as failure:
                yield failure

    def __enter__(self) -> AppendStream:
        return self

    def __exit__(self, *_) -> None:
        self.done()
        self._replies.cancel()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli). Plain Python: take google-crc32c, which uses the processor's instruction, for real loads."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _crc_of_byte(crc: int) -> int:
    for _ in range(8):
        crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc


_CRC_TABLE = [_crc_of_byte(byte) for byte in range(256)]


def _ref(log: str | int) -> pb.LogRef:
    return pb.LogRef(id=log) if isinstance(log, int) else pb.LogRef(name=log)


def _answer(response, wanted: str):
    """The answer of a response, or its refusal as an exception."""
    outcome = response.WhichOneof("outcome")
    if outcome == wanted:
        return getattr(response, wanted)
    # A variant that this client does not know is an error too: the node is newer.
    raise Refused(response.refused)


def _lsns(response: pb.AppendRecordsResponse) -> range:
    outcome = response.WhichOneof("outcome")
    if outcome == "committed":
        return range(response.committed.first_lsn, response.committed.last_lsn + 1)
    if outcome == "not_appended":
        raise NotAppended(response.not_appended)
    # Also for an outcome that this client does not know: the weaker claim.
    unknown = response.unknown
    raise Unknown(unknown.append_id if unknown.HasField("append_id") else None)


def _events(response: pb.ReadLogResponse) -> Iterator[pb.LogRecord | Gap | CaughtUp]:
    kind = response.WhichOneof("event")
    if kind == "records":
        for record in response.records.records:
            # From the disk of a log server to here.
            if crc32c(record.payload) != record.payload_crc32c:
                raise ValueError(f"record {record.lsn} was damaged on the way")
            yield record
    elif kind == "gap":
        gap = response.gap
        yield Gap(getattr(gap, "from"), gap.end, gap.kind == pb.GAP_KIND_LOST)
    elif kind == "caught_up":
        yield CaughtUp(response.caught_up.tail)
    else:
        raise Refused(response.refused)
