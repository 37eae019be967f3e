"""`retrieval repair`: an index that was damaged, made again from its texts.

`repair_index` finds what is damaged, reads the texts from the files of the engine, with or without the engine, makes
all vectors anew and lets the result take the place of the damaged generation.
"""

from pipelines.repair.report import LostDocument, RepairReport
from pipelines.repair.run import repair_index

__all__ = ["LostDocument", "RepairReport", "repair_index"]
