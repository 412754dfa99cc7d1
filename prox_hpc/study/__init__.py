"""A study: its plan (configuration -> DAG of steps), what of it is published, and its state."""
