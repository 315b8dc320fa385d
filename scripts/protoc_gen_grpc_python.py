"""A protoc plugin for the grpc.aio stubs: buf has no builtin for them, grpcio-tools has no plugin binary."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.compiler import plugin_pb2
from grpc_tools import protoc


def main() -> None:
    """Read a CodeGeneratorRequest from stdin, write the response to stdout."""
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    response = plugin_pb2.CodeGeneratorResponse()
    response.supported_features = plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    with tempfile.TemporaryDirectory() as scratch:
        image = Path(scratch) / "image.binpb"
        image.write_bytes(descriptor_pb2.FileDescriptorSet(file=request.proto_file).SerializeToString())
        with_services = {file.name for file in request.proto_file if file.service}
        for name in request.file_to_generate:
            if name not in with_services:
                continue
            if protoc.main(["protoc", f"--descriptor_set_in={image}", f"--grpc_python_out={scratch}", name]):
                raise SystemExit(f"protoc failed on {name}")
            output = name.removesuffix(".proto") + "_pb2_grpc.py"
            response.file.add(name=output, content=(Path(scratch) / output).read_text())
    sys.stdout.buffer.write(response.SerializeToString())


if __name__ == "__main__":
    main()
