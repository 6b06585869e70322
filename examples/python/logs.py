"""Appends to, tails and trims logs from the command line, as an example of `bifrost_client`.

    scripts/python examples/python/logs.py --address HOST:PORT create orders
    echo 'one espresso' | scripts/python examples/python/logs.py append orders --key 7
    scripts/python examples/python/logs.py read orders --follow
"""

import argparse
import os
import sys

import grpc
from bifrost_client import BifrostClient, CaughtUp, Gap, NotAppended, Record, Refused, Unknown

BATCH_RECORDS = 100


def create(client: BifrostClient, args: argparse.Namespace) -> None:
    print(client.create_log(args.log, args.copies).log)


def delete(client: BifrostClient, args: argparse.Namespace) -> None:
    print(client.delete_log(args.log))


def list_logs(client: BifrostClient, args: argparse.Namespace) -> None:
    for log in client.list_logs():
        print(log.log, log.name or "-", f"{log.segments} segments", sep="\t")


def append(client: BifrostClient, args: argparse.Namespace) -> None:
    """Lines of standard input as records, in batches, many of them in flight; prints the LSNs."""
    lines = [line.rstrip(b"\n") for line in sys.stdin.buffer]
    with client.append_stream(args.log) as stream:
        for start in range(0, len(lines), BATCH_RECORDS):
            stream.send([Record(line, args.key) for line in lines[start : start + BATCH_RECORDS]])
        stream.done()
        for outcome in stream.outcomes():
            if not isinstance(outcome, range):
                raise outcome
            print(f"{outcome.start}..{outcome.stop - 1}")


def read(client: BifrostClient, args: argparse.Namespace) -> None:
    until = None if args.follow else client.find_tail(args.log)
    for event in client.read(args.log, args.start, until, args.key):
        if isinstance(event, Gap):
            print(f"[{event.start}, {event.end}) {'lost' if event.lost else 'trimmed'}", file=sys.stderr)
        elif not isinstance(event, CaughtUp):
            print(event.lsn, event.payload.decode(errors="replace"), sep="\t", flush=args.follow)


def tail(client: BifrostClient, args: argparse.Namespace) -> None:
    print(client.find_tail(args.log, args.cached))


def trim(client: BifrostClient, args: argparse.Namespace) -> None:
    print(client.trim(args.log, args.to))


def log_ref(text: str) -> str | int:
    """A plain number is an id: no name is one."""
    return int(text) if text.isascii() and text.isdigit() else text


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    address = os.environ.get("BIFROST_ADDRESS", "127.0.0.1:2437").split(",")[0]
    parser.add_argument("--address", default=address, help="HOST:PORT of any node (BIFROST_ADDRESS; %(default)s)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run, help: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=help)
        one.set_defaults(run=run)
        if run is not list_logs:
            one.add_argument("log", type=str if run is create else log_ref, help="name" if run is create else "name or id")
        return one

    command("create", create, "make a log; prints its id").add_argument("--copies", type=int)
    command("delete", delete, "delete a log and its records for good")
    command("list", list_logs, "list all logs")
    command("append", append, "append lines of standard input").add_argument("--key", type=int)
    reading = command("read", read, "print records, up to the tail")
    reading.add_argument("--from", type=int, dest="start", metavar="LSN")
    reading.add_argument("--key", type=int)
    reading.add_argument("--follow", action="store_true", help="do not end at the tail")
    command("tail", tail, "print the first LSN that is not written").add_argument("--cached", action="store_true")
    command("trim", trim, "drop records up to and including --to").add_argument("--to", type=int, required=True)
    return parser.parse_args()


def main() -> int:
    args = arguments()
    with BifrostClient(args.address) as client:
        try:
            args.run(client, args)
        except (Refused, NotAppended, Unknown) as failure:
            print(f"logs.py: {failure}", file=sys.stderr)
            return 1
        except grpc.RpcError as error:
            print(f"logs.py: {error.code().name}: {error.details()}", file=sys.stderr)
            return 3
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
