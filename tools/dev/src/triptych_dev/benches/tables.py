"""The figures of `./dev bench pods` as tables for people and as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.table import Table

from triptych_dev.benches.lives import Timings
from triptych_dev.benches.report import middle

#: operation -> concurrency -> peer -> {"p50", "p90", "n"}, milliseconds
Results = dict[str, dict[str, dict[str, dict[str, float]]]]
#: operation -> concurrency -> ours / the better peer
Ratios = dict[str, dict[str, float]]
#: pods -> peer -> part -> {"pss_mb", "alone_mb"}
MemoryResults = Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]


def summary(timings: Mapping[str, Timings]) -> Results:
    """p50 and p90 of every peer's timings."""
    result: Results = {}
    for peer, operations in timings.items():
        for name, by_parallel in operations.items():
            for parallel, values in by_parallel.items():
                result.setdefault(name, {}).setdefault(str(parallel), {})[peer] = middle(values)
    return result


def ratios(results: Results, ours: str) -> Ratios:
    """Our p50 by that of the better peer: below 1 we are faster."""
    found: Ratios = {}
    for name, by_parallel in results.items():
        for parallel, by_peer in by_parallel.items():
            others = [cell["p50"] for peer, cell in by_peer.items() if peer != ours]
            if ours in by_peer and others:
                found.setdefault(name, {})[parallel] = round(by_peer[ours]["p50"] / min(others), 2)
    return found


def life_tables(results: Results, found: Ratios) -> Iterator[Table]:
    """One table a concurrency: a row an operation, a column a peer."""
    levels = sorted({parallel for by_parallel in results.values() for parallel in by_parallel}, key=int)
    for parallel in levels:
        names = [name for name, by_parallel in results.items() if parallel in by_parallel]
        peers = list(dict.fromkeys(peer for name in names for peer in results[name][parallel]))
        title = "one at a time" if parallel == "1" else f"{parallel} at a time"
        table = Table(title=f"{title}: p50 (p90) in ms", title_justify="left")
        table.add_column("operation")
        for peer in peers:
            table.add_column(peer, justify="right")
        table.add_column("ratio", justify="right")
        for name in names:
            cells = [_cell(results[name][parallel].get(peer)) for peer in peers]
            ratio = found.get(name, {}).get(parallel)
            table.add_row(name, *cells, "" if ratio is None else f"{ratio:.2f}")
        yield table


def floor_table(results: Results) -> Table:
    """What the plugins and the OCI runtime take by hand."""
    levels = sorted({parallel for by_parallel in results.values() for parallel in by_parallel}, key=int)
    table = Table(title="by hand (crun): p50 (p90) in ms", title_justify="left")
    table.add_column("step")
    for parallel in levels:
        table.add_column(f"{parallel} at a time", justify="right")
    for name, by_parallel in results.items():
        table.add_row(name, *(_cell(by_parallel.get(parallel, {}).get("by hand")) for parallel in levels))
    return table


def memory_table(memory: MemoryResults) -> Table:
    """What the peers cost the node in memory."""
    title = "memory in MB: PSS (as if nobody else mapped the same files)"
    table = Table(title=title, title_justify="left")
    for column in ("pods", "peer", "part"):
        table.add_column(column)
    table.add_column("MB", justify="right")
    for pods, by_peer in memory.items():
        for peer, parts in by_peer.items():
            for part, sizes in parts.items():
                table.add_row(pods, peer, part, f"{sizes['pss_mb']:.1f} ({sizes['alone_mb']:.1f})")
    return table


def memory_ratios(memory: MemoryResults, ours: str) -> dict[str, float]:
    """pods -> our whole memory (as if alone) by that of the better peer."""
    found: dict[str, float] = {}
    for pods, by_peer in memory.items():
        others = [parts["all"]["alone_mb"] for peer, parts in by_peer.items() if peer != ours]
        if ours in by_peer and others:
            found[pods] = round(by_peer[ours]["all"]["alone_mb"] / min(others), 2)
    return found


def _cell(values: Mapping[str, float] | None) -> str:
    if values is None:
        return "-"
    digits = 1 if values["p50"] >= 10 else 2
    return f"{values['p50']:.{digits}f} ({values['p90']:.{digits}f})"
