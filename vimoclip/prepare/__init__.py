"""Laying out a data set: importers, one a module, and what they share."""
