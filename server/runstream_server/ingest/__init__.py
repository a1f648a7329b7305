"""The way of a metric point: stream, batcher, commit, segment, chunk, reader."""
