"""What leaves the hub and is no alert: its feed of events to a receiver, a class a receiver. Imports no Airflow."""
