"""The setting of an engine that equals a patch."""
