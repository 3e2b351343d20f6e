"""Reports: figures, numbers and one self-contained HTML page, from run directories alone.

    from lmwright.report.page import write_report, write_summary
    write_report(Path("runs/quickstart"))

Reads files, never models: torch is not imported.
"""
