"""Checks that a data set and everything created from it is complete, undamaged, up to date and consistent."""
