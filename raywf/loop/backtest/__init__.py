"""Plays a workflow's loop back on its history: the same fold, policy, training and gate."""
