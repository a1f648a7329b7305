"""Check that every rpc declares who may call it; scripts/gen.py runs this with its own environment.

    python scripts/check_access.py gen/descriptor/runstream.binpb     exit 1 and a line for each that does not

The rules are at `Access` in proto/runstream/v1/permissions.proto.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message_factory import GetMessageClass, GetMessageClassesForFiles

KINDS = ("experiment", "experiment_name", "run", "registered_model", "logged_model", "artifact_path", "trace")
READ_KINDS = ("experiment", "run", "registered_model", "logged_model", "artifact_uri", "trace")
NAMES = {
    *("experiment_id", "experiment_ids", "experiment_name", "run_id", "run_ids", "run_uuid", "source_run_id"),
    *("model_id", "model_ids", "source_model_id", "trace_id", "trace_ids", "request_id", "request_ids"),
    "artifact_path",
}
"""Fields that name resources, whatever message they are in."""
NEEDS_NOTHING = ("PERMISSION_PUBLIC", "PERMISSION_AUTHENTICATED", "PERMISSION_ADMIN")
MAX_DEPTH = 4


def problems(descriptor: bytes) -> Iterator[str]:
    """Yield one line for each rpc of runstream in a FileDescriptorSet that declares too little."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptor)
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.AddSerializedFile(file.SerializeToString())
    GetMessageClassesForFiles([file.name for file in files.file], pool)
    options = GetMessageClass(pool.FindMessageTypeByName("google.protobuf.MethodOptions"))
    access = pool.FindExtensionByName("runstream.v1.access")
    for file in files.file:
        for service in file.service if file.package.startswith("runstream.") else ():
            found = pool.FindServiceByName(f"{file.package}.{service.name}")
            for method in found.methods:
                declared = options.FromString(method.GetOptions().SerializeToString())
                text = _problem(method, declared.Extensions[access])  # type: ignore[index]
                if text:
                    yield f"{file.name}: {service.name}.{method.name} {text}"


def _problem(method: MethodDescriptor, access) -> str:  # type: ignore[no-untyped-def]
    names = access.DESCRIPTOR.fields_by_name["permission"].enum_type.values_by_number
    permission = names[access.permission].name
    named = {path for kind in (*KINDS, "artifact_uri") for path in getattr(access, kind)}
    named |= {path for kind in READ_KINDS for path in getattr(access.reads, kind)}
    if permission == "PERMISSION_UNSPECIFIED":
        return "declares no (runstream.v1.access); CONTRIBUTING.md says how"
    if permission in NEEDS_NOTHING and (named or access.filtered or access.by_unit):
        return f"names resources, which {permission} does not look at"
    if permission in NEEDS_NOTHING or access.by_unit:
        return ""
    if not named and not access.filtered:
        return "names no resource; say where its ids are, or filtered"
    for path in (*named, *access.may_be_new, *access.unrelated):
        if not _exists(method.input_type, path):
            return f"names {path}, which the request does not have"
    if missing := sorted(set(_telling(method.input_type)) - named - set(access.unrelated)):
        return "" if access.filtered else f"does not say what {', '.join(missing)} need; or list as unrelated"
    return ""


def _exists(message: Descriptor, path: str) -> bool:
    name, _, rest = path.partition(".")
    field = message.fields_by_name.get(name)
    if field is None:
        return False
    return _exists(field.message_type, rest) if rest and field.message_type else not rest


def _telling(message: Descriptor, before: str = "", depth: int = 0) -> Iterator[str]:
    """Yield the paths of fields whose name says that they name a resource."""
    for field in message.fields:
        if field.message_type and depth < MAX_DEPTH:
            yield from _telling(field.message_type, f"{before}{field.name}.", depth + 1)
        elif field.name in NAMES:
            yield before + field.name


if __name__ == "__main__":
    found = list(problems(Path(sys.argv[1]).read_bytes()))
    print(*found, sep="\n", file=sys.stderr)
    sys.exit(1 if found else 0)
