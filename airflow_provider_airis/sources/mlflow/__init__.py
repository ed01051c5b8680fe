"""MLflow's registry as a source: what it shows beside what is known, and what that makes of events and metrics."""
