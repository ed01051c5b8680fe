"""The main job, end to end, on this machine: ``make demo``, ``python -m sandbox.demo``."""
