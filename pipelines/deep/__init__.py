"""`retrieval doctor --deep`: every file against its seal, every passage against its text, every lookup against a walk.

`deep_check` looks at one index; `pipelines.doctor.examine` with ``deep=True`` looks at the installation as well.
"""

from pipelines.deep.report import DeepReport
from pipelines.deep.run import deep_check

__all__ = ["DeepReport", "deep_check"]
