"""How the alerts of a hub get to one receiving system; :class:`AirisDispatchOperator` runs it."""
