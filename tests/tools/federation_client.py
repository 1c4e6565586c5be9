#!/usr/bin/env python3
"""A stranger on the federation port.

This client holds no copy of our protos. It knows what an integrator knows: an address, a certificate and
its key, the names of the metadata keys, and that the server offers reflection. Everything else it asks
for. It prints exactly one JSON object, on one line:

    {"ok": true,  "stage": "call", "response": {...}}
    {"ok": false, "stage": "reflection" | "call", "code": "UNAUTHENTICATED", "details": "...",
     "error_info": {"reason": "...", "domain": "...", "metadata": {...}} | null,
     "retry_after": seconds | null}

and exits with 0 for a response, 1 for a refusal or a broken connection, 2 for wrong usage.

A node's federation certificate signs itself. gRPC takes such a certificate as its own root, whether it
says CA:TRUE, CA:FALSE or nothing, so `--root` is simply the certificate that the server will show. The name
it is shown under still has to match: `--server-name` says which of its names to expect.
"""

import argparse
import datetime
import json
import os
import sys

# Without this, gRPC writes its own remarks about failed handshakes beside our one line.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc  # noqa: E402
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status

SERVICE = "emcc.federation.v1.FederationService"
LOGIN_TYPES = {"UID": "LOGIN_TYPE_UID", "SP": "LOGIN_TYPE_SP", "DN": "LOGIN_TYPE_DN"}


class Reflection:
    """Asks the server what it serves. The two versions of the service differ only in their name."""

    def __init__(self, channel, version, timeout):
        self._timeout = timeout
        self._ask = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )

    def _one(self, **request):
        answers = self._ask(
            iter([reflection_pb2.ServerReflectionRequest(**request)]), timeout=self._timeout
        )
        answer = next(iter(answers))
        # The stream is read to its end, or a refusal that follows the answer would go unseen.
        for _ in answers:
            pass
        if answer.HasField("error_response"):
            error = answer.error_response
            raise LookupError(f"{request}: {error.error_message} ({error.error_code})")
        return answer

    def services(self):
        return sorted(s.name for s in self._one(list_services="").list_services_response.service)

    def pool(self, symbol):
        """A pool that holds `symbol` and everything it needs, all of it from the server."""
        files = {}

        def add(answer):
            for raw in answer.file_descriptor_response.file_descriptor_proto:
                file = descriptor_pb2.FileDescriptorProto.FromString(raw)
                files[file.name] = file

        add(self._one(file_containing_symbol=symbol))
        while missing := {d for f in files.values() for d in f.dependency} - files.keys():
            for name in sorted(missing):
                add(self._one(file_by_filename=name))

        pool, added = descriptor_pool.DescriptorPool(), set()

        def publish(name):
            if name not in added:
                added.add(name)
                for dependency in files[name].dependency:
                    publish(dependency)
                pool.Add(files[name])

        for name in files:
            publish(name)
        return pool


def open_channel(args):
    with open(args.root, "rb") as file:
        root = file.read()
    cert = key = None
    if not args.no_cert:
        with open(args.cert, "rb") as file:
            cert = file.read()
        with open(args.key, "rb") as file:
            key = file.read()
    credentials = grpc.ssl_channel_credentials(root, private_key=key, certificate_chain=cert)
    options = [("grpc.enable_retries", 0)]
    if args.server_name:
        options.append(("grpc.ssl_target_name_override", args.server_name))
    return grpc.secure_channel(args.target, credentials, options=options)


def metadata(args):
    pairs = [
        ("emcc-cluster-id", args.cluster_id),
        ("emcc-version", args.version),
        ("emcc-ref", args.ref),
    ]
    return [(name, value) for name, value in pairs if value is not None]


def request_of(args):
    """Method and request, the request in the protobuf JSON form."""
    if args.call == "hello":
        low, high = (dict(zip(("major", "minor"), map(int, v.split(".")))) for v in args.speaks)
        return "Hello", {
            "versions": {"min": low, "max": high},
            "clusterId": args.cluster_id or "",
            "node": "reflection-client",
            "software": f"grpcio {grpc.__version__}",
            "now": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "securityMode": "SECURITY_MODE_NON_SECURE",
        }
    if args.call == "find-user":
        request = {"name": args.name}
        if args.login_type:
            request["loginType"] = LOGIN_TYPES[args.login_type]
        return "FindUser", request
    text = sys.stdin.read() if args.json == "-" else args.json
    return args.method, json.loads(text)


def invoke(channel, reflection, args):
    method_name, request = request_of(args)
    method = reflection.pool(SERVICE).FindServiceByName(SERVICE).methods_by_name[method_name]
    request_type = message_factory.GetMessageClass(method.input_type)
    response_type = message_factory.GetMessageClass(method.output_type)
    message = json_format.ParseDict(request, request_type())
    open_call = channel.unary_stream if method.server_streaming else channel.unary_unary
    call = open_call(
        f"/{SERVICE}/{method_name}",
        request_serializer=request_type.SerializeToString,
        response_deserializer=response_type.FromString,
    )
    yield "reflected"
    response = call(message, metadata=metadata(args), timeout=args.timeout)
    if method.server_streaming:
        response = next(iter(response))
    yield json_format.MessageToDict(response, always_print_fields_with_no_presence=True)


def refusal(error, stage):
    info = retry = None
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        status = None
    for detail in status.details if status else []:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            found = error_details_pb2.ErrorInfo()
            detail.Unpack(found)
            info = {
                "reason": found.reason,
                "domain": found.domain,
                "metadata": dict(found.metadata),
            }
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            found = error_details_pb2.RetryInfo()
            detail.Unpack(found)
            retry = found.retry_delay.ToMilliseconds() / 1000
    return {
        "ok": False,
        "stage": stage,
        "code": error.code().name,
        "details": error.details(),
        "error_info": info,
        "retry_after": retry,
    }


def run(args):
    stage = "reflection"
    with open_channel(args) as channel:
        reflection = Reflection(channel, args.reflection, args.timeout)
        try:
            if args.call == "list-services":
                response = {"services": reflection.services()}
            elif args.call == "health":
                stage = "call"
                answer = health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(service=args.service),
                    metadata=metadata(args),
                    timeout=args.timeout,
                )
                response = json_format.MessageToDict(answer)
            else:
                steps = invoke(channel, reflection, args)
                next(steps)
                stage = "call"
                response = next(steps)
        except grpc.RpcError as error:
            return refusal(error, stage)
        except LookupError as error:
            return {"ok": False, "stage": stage, "code": "NOT_REFLECTED", "details": str(error),
                    "error_info": None, "retry_after": None}
    return {"ok": True, "stage": "call", "response": response}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", required=True, metavar="HOST:PORT")
    parser.add_argument("--root", required=True, metavar="PEM", help="what the server's certificate is checked against")
    parser.add_argument("--server-name", metavar="NAME", help="the name to expect in it (default: the host)")
    parser.add_argument("--cert", metavar="PEM", help="our certificate")
    parser.add_argument("--key", metavar="PEM", help="its key")
    parser.add_argument("--no-cert", action="store_true", help="show no certificate")
    parser.add_argument("--cluster-id", help="metadata emcc-cluster-id (default: not sent)")
    parser.add_argument("--version", help="metadata emcc-version (default: not sent, which means 1.0)")
    parser.add_argument("--ref", help="metadata emcc-ref (default: not sent)")
    parser.add_argument("--reflection", choices=("v1", "v1alpha"), default="v1")
    parser.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS")
    calls = parser.add_subparsers(dest="call", required=True)
    calls.add_parser("list-services", help="what reflection lists")
    health = calls.add_parser("health", help="grpc.health.v1.Health/Check")
    health.add_argument("service", nargs="?", default="")
    hello = calls.add_parser("hello", help="Hello")
    hello.add_argument("--speaks", nargs=2, metavar=("MIN", "MAX"), default=("1.0", "1.1"))
    find_user = calls.add_parser("find-user", help="FindUser")
    find_user.add_argument("name")
    find_user.add_argument("login_type", nargs="?", choices=sorted(LOGIN_TYPES))
    raw = calls.add_parser("call", help="any method; for example: call Logout '{\"sessionId\": …}'")
    raw.add_argument("method")
    raw.add_argument("json", help="the request as protobuf JSON, or - to read it from standard input (PINs go there)")
    args = parser.parse_args()
    if not args.no_cert and not (args.cert and args.key):
        parser.error("give --cert and --key, or --no-cert")
    return args


def main():
    result = run(arguments())
    print(json.dumps(result, sort_keys=True))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
