"""Write third_party/buf/validate/validate.proto from the descriptor inside the protovalidate wheel.

The wheel carries the compiled rules but not their source, and no package registry that ships wheels has it. The text is
the descriptor, written back as proto2; comments are lost, meaning is not.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

LICENSE = """// Copyright 2023-2026 Buf Technologies, Inc.
//
// Licensed under the Apache License, Version 2.0 (the "License");
// you may not use this file except in compliance with the License.
// You may obtain a copy of the License at
//
//      http://www.apache.org/licenses/LICENSE-2.0
//
// Unless required by applicable law or agreed to in writing, software
// distributed under the License is distributed on an "AS IS" BASIS,
// WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
// See the License for the specific language governing permissions and
// limitations under the License.

// Written by scripts/print_validate_proto.py from the descriptor of the wheel protovalidate 2.1.0.
"""
Field = descriptor_pb2.FieldDescriptorProto
LABELS = {Field.LABEL_OPTIONAL: "optional", Field.LABEL_REPEATED: "repeated", Field.LABEL_REQUIRED: "required"}


def descriptor_bytes() -> bytes:
    """Return the serialized FileDescriptorProto: the first bytes literal handed to `file_desc`."""
    spec = importlib.util.find_spec("protovalidate")
    if spec is None or spec.origin is None:
        raise SystemExit("protovalidate is not installed: run 'make setup-dev'")
    source = Path(spec.origin).parent / "_gen/buf/validate/validate_pb.py"
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "file_desc":
            return ast.literal_eval(node.args[0])
    raise SystemExit("no descriptor in the wheel")


class Printer:
    """Prints one file descriptor as proto2 source."""

    def __init__(self, file: descriptor_pb2.FileDescriptorProto) -> None:
        self.file = file
        pool = descriptor_pool.Default()
        for name in ("descriptor", "duration", "field_mask", "timestamp"):
            __import__(f"google.protobuf.{name}_pb2")
        pool.Add(file)
        self.options_type = message_factory.GetMessageClass(pool.FindMessageTypeByName("google.protobuf.FieldOptions"))
        message_factory.GetMessageClassesForFiles([file.name], pool)
        self.lines: list[str] = []

    def put(self, depth: int, text: str) -> None:
        self.lines.append("  " * depth + text)

    def type_of(self, field: descriptor_pb2.FieldDescriptorProto) -> str:
        if field.type_name:
            return field.type_name.removeprefix(".buf.validate.").removeprefix(".")
        return Field.Type.Name(field.type).removeprefix("TYPE_").lower()

    def options(self, field: descriptor_pb2.FieldDescriptorProto, depth: int) -> str:
        parsed = self.options_type.FromString(field.options.SerializeToString())
        found = []
        if field.json_name and field.default_value:
            found.append(f"default = {field.default_value}")
        for option, value in parsed.ListFields():
            name = f"({option.full_name})" if option.is_extension else option.name
            if option.message_type:
                body = text_format.MessageToString(value).rstrip().replace("\n", "\n" + "  " * (depth + 2))
                found.append(f"{name} = {{\n{'  ' * (depth + 2)}{body}\n{'  ' * (depth + 1)}}}")
            else:
                found.append(f"{name} = {str(value).lower()}")
        return f" [{', '.join(found)}]" if found else ""

    def field(self, field: descriptor_pb2.FieldDescriptorProto, depth: int, in_oneof: bool = False) -> None:
        label = "" if in_oneof else LABELS[field.label] + " "
        self.put(depth, f"{label}{self.type_of(field)} {field.name} = {field.number}{self.options(field, depth)};")

    def message(self, message: descriptor_pb2.DescriptorProto, depth: int = 0) -> None:
        self.put(depth, f"message {message.name} {{")
        for nested in message.nested_type:
            self.message(nested, depth + 1)
        done: set[int] = set()
        for field in message.field:
            if not field.HasField("oneof_index"):
                self.field(field, depth + 1)
            elif field.oneof_index not in done:
                done.add(field.oneof_index)
                self.put(depth + 1, f"oneof {message.oneof_decl[field.oneof_index].name} {{")
                for member in message.field:
                    if member.HasField("oneof_index") and member.oneof_index == field.oneof_index:
                        self.field(member, depth + 2, in_oneof=True)
                self.put(depth + 1, "}")
        for extensions in message.extension_range:
            end = "max" if extensions.end > 536870911 else str(extensions.end - 1)
            self.put(depth + 1, f"extensions {extensions.start} to {end};")
        for reserved in message.reserved_range:
            self.put(depth + 1, f"reserved {reserved.start} to {reserved.end - 1};")
        for name in message.reserved_name:
            self.put(depth + 1, f'reserved "{name}";')
        self.put(depth, "}")

    def text(self) -> str:
        for enum in self.file.enum_type:
            self.put(0, f"enum {enum.name} {{")
            for value in enum.value:
                self.put(1, f"{value.name} = {value.number};")
            for reserved in enum.reserved_range:
                self.put(1, f"reserved {reserved.start} to {reserved.end};")
            for name in enum.reserved_name:
                self.put(1, f'reserved "{name}";')
            self.put(0, "}")
        for message in self.file.message_type:
            self.message(message)
        for extension in self.file.extension:
            self.put(0, f"extend {extension.extendee.removeprefix('.')} {{")
            self.field(extension, 1)
            self.put(0, "}")
        head = [LICENSE, 'syntax = "proto2";', "", f"package {self.file.package};", ""]
        head += [f'import "{name}";' for name in self.file.dependency]
        options = self.file.options
        head += ["", f'option go_package = "{options.go_package}";', "option java_multiple_files = true;"]
        head += [f'option java_package = "{options.java_package}";', ""]
        return "\n".join(head + self.lines) + "\n"


if __name__ == "__main__":
    printer = Printer(descriptor_pb2.FileDescriptorProto.FromString(descriptor_bytes()))
    target = Path(__file__).parent.parent / "third_party/buf/validate/validate.proto"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(printer.text())
    sys.stdout.write(f"wrote {target.name}\n")
