"""Ethograms of many videos: time budgets, transitions, what to review first, and the files of a folder of timelines."""
