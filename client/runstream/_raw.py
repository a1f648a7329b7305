"""Messages that are passed on as they are."""

from __future__ import annotations


class Raw:
    """A message that is its own serialized form."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def SerializeToString(self) -> bytes:
        """Return the bytes."""
        return self.data

    @classmethod
    def FromString(cls, data: bytes) -> Raw:
        """Return a message of these bytes."""
        return cls(data)
