"""Reads the tables of one tenant with the `deltalake` package, joins them in DuckDB, and prints what is there as JSON.

    read_tables.py --tenant STORE/TENANT

Knows nothing of Tercet but docs/formats/tables.md.
"""

import argparse
import json
import os
import sys

import duckdb
from deltalake import DeltaTable

TABLES = [
    "series",
    "samples",
    "histograms",
    "exemplars",
    "metric_metadata",
    "streams",
    "logs",
    "resources",
    "spans",
]

# The same row may lie in more than one file until they are compacted, so rows are told apart by what makes them unique.
QUESTIONS = {
    "samples": """
        select distinct f.labels, s.ts_ms,
            case when s.mantissa is null then s.value
                 when s.scale >= 0 then s.mantissa::double / pow(10.0, s.scale)
                 else s.mantissa::double * pow(10.0, -s.scale) end
        from samples s join series f on s.series_id = f.series_id and s.date = f.date""",
    "histograms": """
        select distinct f.labels, h.ts_ms, h.count, h.sum
        from histograms h join series f on h.series_id = f.series_id and h.date = f.date""",
    "exemplars": """
        select distinct f.labels, e.ts_ms, e.value, lower(hex(e.trace_id))
        from exemplars e join series f on e.series_id = f.series_id and e.date = f.date""",
    "metadata": "select distinct metric, type, unit, help from metric_metadata",
    "logs": """
        select distinct f.labels, l.ts_ns, l.line, l.severity, lower(hex(l.trace_id)), lower(hex(l.span_id))
        from logs l join streams f on l.stream_id = f.stream_id and l.date = f.date""",
    "spans": """
        select distinct r.service_name, lower(hex(s.trace_id)), lower(hex(s.span_id)), s.name, s.start_ns
        from spans s join resources r on s.resource_id = r.resource_id and s.date = r.date""",
}


def plain(value):
    """A map comes as a dict; a double that JSON cannot spell as text."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    return value


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tenant", required=True)
    arguments = parser.parse_args()
    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'")
    counts, files = {}, {}
    for name in TABLES:
        table = DeltaTable(os.path.join(arguments.tenant, name))
        connection.register(name, table.to_pyarrow_dataset())
        counts[name] = connection.execute(f"select count(*) from {name}").fetchall()[0][0]
        added = table.get_add_actions(flatten=True)
        files[name] = len(table.file_uris())
        # What the log says of the files must be what is in them.
        assert sum(added["num_records"].to_pylist()) == counts[name], name
    rows = {
        name: [[plain(value) for value in row] for row in connection.execute(question).fetchall()]
        for name, question in QUESTIONS.items()
    }
    json.dump({"counts": counts, "files": files, "rows": rows}, sys.stdout)


if __name__ == "__main__":
    main()
