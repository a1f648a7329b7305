"""The database's clock: leases and times of last use compare with nothing else."""

from runstream_server.store.clock import now

__all__ = ["now"]
