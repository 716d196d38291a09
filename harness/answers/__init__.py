"""Stored answers: shown, scored again, written in the layouts of others."""
