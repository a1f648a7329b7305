"""The filter language and ordering of searches.

    text ──lexer──> tokens ──parser──> tree ──compile──> SQL condition
    order_by texts ──order──> sort keys ──paging──> keyset pages with signed tokens

`entities` holds the vocabulary of each search: RUNS, EXPERIMENTS, MODELS, VERSIONS. `query` puts it together.
"""
