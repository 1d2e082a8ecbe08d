"""Training, evaluation and export as functions, which the commands call as well."""

from __future__ import annotations
