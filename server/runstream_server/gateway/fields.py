"""What kind of field a descriptor tells of, over all supported versions of protobuf."""

from google.protobuf.descriptor import FieldDescriptor


def is_map(field: FieldDescriptor) -> bool:
    """Return whether a field is a map."""
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def is_repeated(field: FieldDescriptor) -> bool:
    """Return whether a field is a list or map."""
    known = getattr(field, "is_repeated", None)
    # Older versions have only the label, newer ones warn of it.
    return (
        field.label == FieldDescriptor.LABEL_REPEATED  # type: ignore[attr-defined]
        if known is None
        else bool(known)
    )
