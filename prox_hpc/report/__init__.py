"""What a study found: FLOPs ledger, matched-performance statistics, report.json and report.html."""
