"""How much, how often and how long."""

from __future__ import annotations

from airflow_provider_airis.channels.base import TIMEOUT_S

# Groups delivered side by side to one target, and to all of them; and changes read at once.
DELIVERIES = 4
MOST_DELIVERIES = 8
PAGE = 500
# Seconds: that one look at the feed takes at most, and while there is work to do; and between two commits.
LOOK_S = 5.0
SHORT_LOOK_S = 0.5
# Seconds between two looks while something is being sent, so that in a burst each brings many changes.
BETWEEN_LOOKS_S = 0.2
COMMIT_S = 1.0
# Seconds: the first and the longest pause before what failed is tried again, and the one after a refusal.
SHORTEST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
REFUSED_PAUSE_S = 30.0
# Seconds that a receiver is silent before the hub is told.
OUTAGE_S = 60.0
# How often a group may fail while the receiver takes others, before the fault is taken to be the group's.
MOST_FAILURES = 10
# And refused, like a token that was revoked.
MOST_REFUSALS = 2
# Seconds after which a run asks again whether another one has taken over.
TURN_S = 1.0
# Seconds in which a run that was declared dead, and is not, ends what it is sending.
GRACE_S = 2 * TIMEOUT_S
# Seconds for which a run stays if something is due then: a task's start takes longer than it is worth.
STAY_S = 60.0
# Seconds after which silenced alerts are looked at again, as a silence may end early.
SILENCED_S = 300.0
