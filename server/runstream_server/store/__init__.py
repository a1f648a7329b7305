"""Metadata in SQLite or PostgreSQL: one module of tables, one file of SQL a domain."""
