"""Whom alerts are shown to: a class for each receiving system, which knows no scheduler, no routes and no log."""
