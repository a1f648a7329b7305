"""Alembic's entry point. The connection, with its transaction and lock, comes from `store/schema.py`."""

from alembic import context

from runstream_server.store.schema import VERSION_TABLE, is_ours
from runstream_server.store.tables import metadata


def _run() -> None:
    connection = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        include_object=is_ours,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


_run()
