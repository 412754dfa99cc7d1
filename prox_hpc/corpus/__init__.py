"""Documents: reading them from files or artifacts, writing blocks, rule filters, and the generated web."""
