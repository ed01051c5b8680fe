"""Stand-in of Cloud Monitoring and Vertex AI's Endpoint service: gRPC on Google's own message types, a known truth.

``python -m sandbox.vertex_ai --endpoints 20 --history-from … --history-until … --live-from …``; point
``monitoring_endpoint`` and ``aiplatform_endpoint`` of a connection's extra at it. It refuses what Google refuses; see
:mod:`sandbox.vertex_ai.google`. What exists and with which values is in :mod:`sandbox.vertex_ai.fleet`. The paths under
``/_sandbox``, on the same port, show the truth and arrange faults; see :mod:`sandbox.vertex_ai.control`.
"""

from sandbox.vertex_ai.peer import PEER

__all__ = ["PEER"]
