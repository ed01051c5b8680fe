"""Stand-in of SageMaker and CloudWatch metrics: one process, one port, any depth of history, a known truth.

``python -m sandbox.sagemaker --endpoints 20 --history-from … --history-until … --live-from …``; point boto3's
``endpoint_url`` of both services at it. It enforces the limits that AWS documents and refuses what AWS refuses; see
:mod:`sandbox.sagemaker.aws`. What exists and with which values is in :mod:`sandbox.sagemaker.fleet`. The paths under
``/_sandbox`` show the truth and arrange incidents and faults; see :mod:`sandbox.sagemaker.__main__`.
"""

from sandbox.sagemaker.peer import PEER

__all__ = ["PEER"]
