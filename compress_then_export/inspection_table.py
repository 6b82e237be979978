"""What ``inspect`` prints for people."""

from __future__ import annotations

from exporters.inspection import ModelReport


def inspection_table(report: ModelReport) -> str:
    """One line a layer and the totals."""
    rows = [("layer", "op", "shape", "parameters", "sparsity", "MACs", "bytes", "encoding")]
    rows += [
        (
            layer.name,
            layer.op,
            "x".join(map(str, layer.shape)),
            f"{layer.parameters:,}",
            f"{layer.sparsity:.2%}",
            "?" if layer.macs is None else f"{layer.macs:,}",
            f"{layer.size_bytes:,}",
            layer.encoding,
        )
        for layer in report.layers
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(8)]
    lines = [
        "  ".join(
            cell.ljust(width) if column in (0, 1, 2, 7) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    macs = "unknown" if report.macs is None else f"{report.macs:,} MACs ({report.nonzero_macs:,} non-zero)"
    return "\n".join(
        [
            *lines,
            "",
            f"{report.size_bytes:,} bytes; {report.parameters:,} parameters ({report.nonzero_parameters:,} non-zero); "
            f"{macs}; sparsity {report.sparsity:.2%}",
        ]
    )
