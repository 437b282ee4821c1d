"""Importers of data sets, one per module, and their common steps."""
