"""The README's table of figures, out of the JSON."""

from __future__ import annotations

from pathlib import Path

from .report import (
    IMAGES,
    SECTIONS,
    Modes,
    Part,
    best,
    caption,
    counts_of,
    labels_of,
    one_line,
    page,
    precision_of,
    table,
)

START, END = "<!-- benchmark.py report: start -->", "<!-- benchmark.py report: end -->"
NOT_MEASURED = "Not measured yet; `python scripts/benchmark.py` does it."


def readme_block(modes: Modes) -> str:
    """What stands between the two marks in the README."""
    part = modes.get("peers")
    if part is None:
        return NOT_MEASURED + "\n"
    auto = {precision_of(row) for row in part["rows"] if row["dtype"] == "auto"}
    rows = [
        (row["title"], precision_of(row).removeprefix("torch "), *_figures(row))
        for row in part["rows"]
        # What auto took, named by hand, is the same engine once more.
        if not (row["title"] == "ours" and f"torch {row['dtype']}" in auto)
    ]
    head = (part["shape"], "precision", "requests/s", "p50")
    out = [table(head, rows)]
    out += [_wrong_line(part["rows"]), _null_line(part["null"])]
    out += [_share_line(modes.get("service", {}))]
    counts = sorted({run["connections"] for row in part["rows"] for run in row.get("runs", ())})
    out.append(f"At the better of {' and '.join(map(str, counts))} connections. {caption(part)}\n")
    return "\n".join(line for line in out if line)


def _wrong_line(rows: list[Part]) -> str:
    """All errors, and how many labels are transformers' own: once, where all rows have as many."""
    ran = [row for row in rows if row.get("runs")]
    counts = ", ".join(f"{row['title']} {_errors(row)}" for row in ran if _errors(row)) or "none"
    agreed = {labels_of(row) for row in ran}
    labels = ", ".join(sorted(agreed)) if len(agreed) == 1 else _labels_by_row(ran)
    return f"Errors: {counts}. Labels as transformers': {labels}.\n"


def _labels_by_row(rows: list[Part]) -> str:
    return ", ".join(f"{row['title']} {labels_of(row)}" for row in rows)


def _null_line(rows: list[Part]) -> str:
    said = [
        f"{row['title']} {run['requests_per_s']:,.0f}"
        for row in rows
        for run in row.get("runs", ())
        if run["connections"] == 256
    ]
    return f"Without a model, 256 connections, requests/s: {'; '.join(said)}.\n" if said else ""


def _share_line(part: Part) -> str:
    said = [
        f"{found['title']} {run['share']:.0%}"
        for found in part.get("shapes", {}).values()
        for run in found.get("runs", ())
        if run["connections"] == 64 and "share" in run
    ]
    if not said:
        return ""
    return f"Of the raw engine's throughput, over HTTP at 64 connections: {', '.join(said)}.\n"


def put_into(readme: str, block: str) -> str:
    """The README with the block between its marks.

    Raises:
        ValueError: a mark is missing.
    """
    if START not in readme or END not in readme:
        raise ValueError(f"README.md has no {START} … {END}")
    before, _, rest = readme.partition(START)
    return f"{before}{START}\n\n{block}\n{END}{rest.partition(END)[2]}"


def write(modes: Modes, docs: Path, readme: Path | None) -> None:
    """benchmark.md in `docs`, and the block in `readme`."""
    drawn = [name for name in SECTIONS if (docs / IMAGES / f"{name}-light.svg").exists()]
    (docs / "benchmark.md").write_text(page(modes, drawn), encoding="utf-8")
    if readme is not None:
        text = readme.read_text(encoding="utf-8")
        readme.write_text(put_into(text, readme_block(modes)), encoding="utf-8")


def _figures(row: Part) -> tuple[str, str]:
    if not row.get("runs"):
        return f"can't run: {one_line(row.get('unavailable', 'interrupted'))}", ""
    p50_ms = max(row["runs"], key=lambda run: run["requests_per_s"])["p50_ms"]
    return f"{best(row):,.1f}", f"{p50_ms:,.0f} ms"


def _errors(row: Part) -> int:
    return sum(int(str(counts_of(run)[0])) for run in row["runs"])
