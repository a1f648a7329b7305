"""Write the comments of the contract as JSON, full name -> text: scripts/gen.py runs this beside protoc.

    python scripts/comments.py DESCRIPTORS FILE

DESCRIPTORS is a FileDescriptorSet with source information. Services, methods, messages and fields of
`runstream` are in it; lines of a paragraph are joined, paragraphs stay apart.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet


def names(file: FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yield the path in the file, as source information has it, and the full name of what has a comment."""
    for i, service in enumerate(file.service):
        name = f"{file.package}.{service.name}"
        yield (6, i), name
        yield from (((6, i, 2, k), f"{name}.{method.name}") for k, method in enumerate(service.method))
    for i, message in enumerate(file.message_type):
        yield from _in_message((4, i), f"{file.package}.{message.name}", message)


def _in_message(path: tuple[int, ...], name: str, message: Any) -> Iterator[tuple[tuple[int, ...], str]]:
    yield path, name
    yield from (((*path, 2, k), f"{name}.{field.name}") for k, field in enumerate(message.field))
    for i, inner in enumerate(message.nested_type):
        yield from _in_message((*path, 3, i), f"{name}.{inner.name}", inner)


def text_of(comment: str) -> str:
    """Return a comment with the lines of each paragraph joined; what is indented keeps its lines."""
    paragraphs = re.split(r"\n\s*\n", comment.strip("\n"))
    return "\n\n".join(
        paragraph
        if re.search(r"^ {2,}\S", paragraph, re.MULTILINE)
        else " ".join(line.strip() for line in paragraph.splitlines())
        for paragraph in paragraphs
    ).strip()


def main() -> None:
    """Run the command line."""
    source, target = map(Path, sys.argv[1:])
    made: dict[str, str] = {}
    for file in FileDescriptorSet.FromString(source.read_bytes()).file:
        if not file.package.startswith("runstream."):
            continue
        said = {tuple(at.path): at.leading_comments for at in file.source_code_info.location}
        made.update({name: text_of(said[path]) for path, name in names(file) if said.get(path)})
    target.write_text(json.dumps(made, indent=0, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
