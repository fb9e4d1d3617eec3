"""What can be said of an ensemble and its filters from counted vote patterns, without looking at a sample again."""

from chaffinch.filters.diagnosis.label_model import LabelModelDiagnosis, SourceDiagnosis, diagnose_model

__all__ = ["LabelModelDiagnosis", "SourceDiagnosis", "diagnose_model"]
