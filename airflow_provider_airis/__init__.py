"""Apache Airflow provider for AIRIS-MON."""

__version__ = "0.1.0"
