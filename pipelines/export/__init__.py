"""What leaves the project: its static model for other libraries, and a small index for a page in the browser."""

from pipelines.export.model import ExportReport, ModelToExport, export_model, model_to_export
from pipelines.export.passages import ExportedPassages, export_passages

__all__ = [
    "ExportReport",
    "ExportedPassages",
    "ModelToExport",
    "export_model",
    "export_passages",
    "model_to_export",
]
