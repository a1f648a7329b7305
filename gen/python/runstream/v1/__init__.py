"""Generated messages, services and stubs of `runstream.v1`; written by scripts/gen.py."""
