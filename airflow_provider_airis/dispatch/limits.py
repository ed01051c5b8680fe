"""How much, how often and how long."""

from __future__ import annotations

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
# Seconds: the first and the longest pause before what failed is tried again.
SHORTEST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
# Seconds: the pause after a target has refused whatever it was sent, which grows so many times with each refusal.
REFUSED_PAUSE_S = 30.0
REFUSED_PAUSE_GROWS = 4
LONGEST_REFUSED_PAUSE_S = 900.0
# Seconds that a receiver is silent before the hub is notified.
OUTAGE_S = 60.0
# How many groups, one after the other, are refused alike before that is an outage.
ALIKE = 2
# How often a group may fail while the receiver takes others, before the fault is taken to be the group's.
MOST_FAILURES = 10
# And be refused: with a status that may mean everything, like a revoked token's; and with one that means a group.
MOST_REFUSALS = 2
MOST_REFUSALS_ALONE = 1
# Seconds for which a run has the right to send; it is renewed so many times within them, and what is begun needs this
# much of them, so that it has ended when another run may begin.
LEASE_S = 10.0
RENEWALS = 5
SENDING_TAKES = 0.6
# Seconds without a turn of its loop after which a run that hangs renews no more.
HANGS_S = 90.0
# Seconds in which a run of an earlier version ends what it is sending.
GRACE_S = 10.0
# Seconds for which a run stays if something is due then: a task's start takes longer than it is worth.
STAY_S = 60.0
# Seconds after which silenced alerts are looked at again, as a silence may end early.
SILENCED_S = 300.0
