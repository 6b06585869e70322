"""Every call of the client once, with what comes out of it checked: a tour, and what the test suite runs.

    scripts/python examples/python/walkthrough.py HOST:PORT

Makes logs and deletes them again. Prints a line for each part, and exits with 0 if everything was as it says.
"""

import sys
import threading

import grpc
from bifrost.v1 import log_pb2 as pb
from bifrost_client import BifrostClient, CaughtUp, Gap, NotAppended, Record, Refused, Unknown, crc32c
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

LOG = "walkthrough"


def check(holds: bool, what: object) -> None:
    if not holds:
        raise AssertionError(what)


def refused(why: str, call) -> Exception:
    """The refusal that a call must end with."""
    try:
        result = call()
    except (Refused, NotAppended) as failure:
        check(failure.why == why, f"{failure} instead of {why}")
        return failure
    raise AssertionError(f"{result} instead of {why}")


def status(code: grpc.StatusCode, call) -> None:
    """The status that a call must end with: the request was malformed."""
    try:
        result = call()
    except grpc.RpcError as error:
        check(error.code() == code, f"{error.code()} ({error.details()}) instead of {code}")
        return
    raise AssertionError(f"{result} instead of {code}")


def logs(client: BifrostClient) -> None:
    made = client.create_log(LOG, copies=2)
    check(made.name == LOG and len(made.segments) == 1, made)
    described = client.get_log(made.log)
    check(described == client.get_log(LOG), described)
    check(described.segments[0].WhichOneof("state") == "open", described)
    check(described.segments[0].base_lsn == 1, described)
    unnamed = client.create_log()
    listed = {log.log: log.name for log in client.list_logs(page_size=1)}
    check(listed == {made.log: LOG, unnamed.log: ""}, listed)
    check(client.delete_log(unnamed.log) == unnamed.log, unnamed)
    refused("unknown_log", lambda: client.get_log(unnamed.log))


def appends(client: BifrostClient) -> None:
    check(client.find_tail(LOG) == 1, "a new log begins at 1")
    for number in range(100):
        lsns = client.append(LOG, [Record(f"record {number}".encode(), keys=number % 10)])
        check(lsns == range(number + 1, number + 2), lsns)
    batch = [Record(b"", (7, 8)), Record(b"no keys"), Record(bytes(range(256)), range(100, 200))]
    check(client.append(LOG, batch) == range(101, 104), "a batch is contiguous")
    check(client.find_tail(LOG) == 104, "all of them count")
    check(client.find_tail(LOG, cached=True) == 104, "this node has seen them")


def append_stream(client: BifrostClient) -> None:
    with client.append_stream(LOG) as stream:
        for number in range(500):
            stream.send([Record(f"streamed {number}".encode(), keys=1000 + number), Record(b"x")])
            if number == 250:
                stream.send([])
        stream.done()
        outcomes = list(stream.outcomes())
    check(len(outcomes) == 501, len(outcomes))
    check(isinstance(outcomes[251], NotAppended) and outcomes[251].why == "empty_batch", outcomes[251])
    committed = [outcome for outcome in outcomes if isinstance(outcome, range)]
    check(committed == [range(104 + 2 * n, 106 + 2 * n) for n in range(500)], "in order, without a hole")
    refused("unknown_log", lambda: client.append_stream("nobody-made-this").send([]))


def reads(client: BifrostClient) -> None:
    tail = client.find_tail(LOG)
    records = [event for event in client.read(LOG, until=tail) if not isinstance(event, CaughtUp)]
    check([record.lsn for record in records] == list(range(1, tail)), "every LSN once, in order")
    check(records[0].payload == b"record 0" and records[0].keys.single.key == 0, records[0])
    check(records[100].payload == b"" and records[100].keys.pair.second == 8, records[100])
    check(not records[101].HasField("keys"), records[101])
    check(records[102].payload == bytes(range(256)) and records[102].keys.range.last == 199, records[102])
    # Single keys, pairs and ranges: whatever holds 7.
    sevens = [event.lsn for event in client.read(LOG, until=tail, key=7) if not isinstance(event, CaughtUp)]
    check(sevens == [8, 18, 28, 38, 48, 58, 68, 78, 88, 98, 101], sevens)
    check([event.lsn for event in client.read(LOG, until=tail, key=150)] == [103], "a range holds 150")
    check(list(client.read(LOG, start=5, until=5)) == [], "an empty range is a range")


def tailing(client: BifrostClient) -> None:
    """A reader that follows the log sees what another one appends."""
    tail = client.find_tail(LOG)
    caught_up = threading.Event()
    appender = threading.Thread(target=lambda: caught_up.wait() and client.append(LOG, [Record(b"news")]))
    appender.start()
    try:
        for event in client.read(LOG, start=tail):
            if isinstance(event, CaughtUp):
                caught_up.set()
            else:
                check((event.lsn, event.payload) == (tail, b"news"), event)
                break
    finally:
        caught_up.set()
        appender.join()


def trims(client: BifrostClient) -> None:
    check(client.trim(LOG, 50) == 50, "the trim point")
    check(client.trim(LOG, 10) == 50, "it never goes back")
    events = list(client.read(LOG, start=1, until=53))
    check(events[0] == Gap(1, 51, lost=False), events[0])
    check([record.lsn for record in events[1:]] == [51, 52], events)
    events = [event for event in client.read(LOG, until=53) if not isinstance(event, CaughtUp)]
    check([record.lsn for record in events] == [51, 52], "from the first that is not trimmed")
    tail = client.find_tail(LOG)
    check(refused("beyond_tail", lambda: client.trim(LOG, tail)).detail.tail == tail, "the tail is told")
    check(client.get_log(LOG).trim_point == 50, "the chain has it")


def bad_input(client: BifrostClient) -> None:
    tail = client.find_tail(LOG)
    refused("unknown_log", lambda: client.append("nobody-made-this", [Record(b"x")]))
    refused("unknown_log", lambda: client.find_tail(2**64 - 1))
    check(refused("name_taken", lambda: client.create_log(LOG)).detail.log == client.get_log(LOG).log, "whose it is")
    for name in ["", "../x", "a\0b", "17", "x" * 10_240, "tab\there", "ä"]:
        refused("invalid_name", lambda: client.create_log(name))
        refused("invalid_name", lambda: client.find_tail(name))
    refused("empty_batch", lambda: client.append(LOG, []))
    too_large = bytes((8 << 20) + 1)
    large = pb.AppendRecordsRequest(log=pb.LogRef(name=LOG), records=[pb.NewRecord(payload=too_large)])
    why = client.stub.Append(large, timeout=client.deadline).not_appended
    check(why.record_too_large.bytes == len(too_large) and why.record_too_large.bytes_max == 8 << 20, why)
    huge = pb.AppendRecordsRequest(log=pb.LogRef(name=LOG), records=[pb.NewRecord(payload=bytes(9 << 20))] * 2)
    # The client's own limit speaks first; without it the node's does.
    status(grpc.StatusCode.RESOURCE_EXHAUSTED, lambda: client.stub.Append(huge, timeout=client.deadline))
    damaged = [pb.NewRecord(payload=b"fine"), pb.NewRecord(payload=b"123456789", payload_crc32c=1)]
    request = pb.AppendRecordsRequest(log=pb.LogRef(name=LOG), records=damaged)
    why = client.stub.Append(request, timeout=client.deadline).not_appended.bad_checksum
    check((why.record, why.actual) == (1, 0xE3069283 == crc32c(b"123456789") and 0xE3069283), why)
    refused("inverted_keys", lambda: client.append(LOG, [Record(b"x", range(9, 5))]))
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    status(invalid, lambda: client.trim(LOG, 0))
    status(invalid, lambda: list(client.read(LOG, start=0)))
    status(invalid, lambda: list(client.read(LOG, start=9, until=8)))
    status(invalid, lambda: client.stub.GetLog(pb.GetLogRequest(), timeout=client.deadline))
    status(invalid, lambda: client.stub.GetLog(pb.GetLogRequest(log=pb.LogRef()), timeout=client.deadline))
    status(invalid, lambda: client.stub.FindTail(pb.FindTailRequest(log=pb.LogRef(name=LOG), kind=99), timeout=client.deadline))
    status(invalid, lambda: client.resolve("no append has this id"))
    check(client.find_tail(LOG) == tail, "nothing of that was appended")


def resolving(client: BifrostClient) -> None:
    """An id as a node gives it with an unknown outcome: here one of a writer that never was."""
    log = client.get_log(LOG)
    segment = log.segments[-1].params.id.segment
    check(client.resolve(f"{log.log}/{1:026}/1+1/{segment}/{client.find_tail(LOG)}/1") is None, "it is not in the log")
    try:
        client.resolve(f"{log.log}/{1:026}/1+1/{segment}/60/{2**63}")
    except Unknown as unknown:
        raise AssertionError("what is neither trimmed nor lost can be told") from unknown


def health(client: BifrostClient) -> None:
    stub = health_pb2_grpc.HealthStub(client.channel)
    for service in ["", "bifrost.v1.LogService"]:
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=client.deadline)
        check(answer.status == health_pb2.HealthCheckResponse.SERVING, answer)
    unknown = health_pb2.HealthCheckRequest(service="no.such.Service")
    status(grpc.StatusCode.NOT_FOUND, lambda: stub.Check(unknown, timeout=client.deadline))


def reflection(client: BifrostClient) -> None:
    database = ProtoReflectionDescriptorDatabase(client.channel)
    services = set(database.get_services())
    check({"bifrost.v1.LogService", "grpc.health.v1.Health"} <= services, services)
    file = database.FindFileContainingSymbol("bifrost.v1.LogService")
    methods = {method.name for service in file.service for method in service.method}
    check({"Append", "AppendStream", "Read", "FindTail", "Trim", "Resolve"} <= methods, methods)


def cleaning_up(client: BifrostClient) -> None:
    gone = client.delete_log(LOG)
    refused("unknown_log", lambda: client.append(LOG, [Record(b"late")]))
    check(client.create_log(LOG).log > gone, "the name is free, the id is not")
    check(client.append(LOG, [Record(b"first")]) == range(1, 2), "another log of the same name")
    client.delete_log(LOG)


PARTS = [
    logs,
    appends,
    append_stream,
    reads,
    tailing,
    trims,
    bad_input,
    resolving,
    health,
    reflection,
    cleaning_up,
]


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with BifrostClient(sys.argv[1]) as client:
        for part in PARTS:
            part(client)
            print(part.__name__.replace("_", " "), "ok", flush=True)


if __name__ == "__main__":
    main()
