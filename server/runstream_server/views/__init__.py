"""Views of many runs: windows, keys, groups and comparisons, over the search of runs.

`selection` reads which runs; `columns` reads values of chosen columns; the others are one RPC each.
"""
