"""Checks that a data set and everything computed from it is complete, undamaged, up to date and consistent."""
