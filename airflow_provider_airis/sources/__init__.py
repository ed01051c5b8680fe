"""The engines of the kinds of sources: what their systems have in common. They import no Airflow."""
