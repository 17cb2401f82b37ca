"""Whole files through a running service: a table in, the same table with labels out.

- parts: The output as it grows: whole parts on disk, joined to one file at the end
- run: From a table's rows to a table with labels, in order, with a bounded number in memory
- tables: Tables as people have them: csv, tsv, jsonl and parquet, plain or compressed

cli imports it. It asks over HTTP and imports neither Ray nor torch.
"""
