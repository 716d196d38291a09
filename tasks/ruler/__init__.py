"""RULER: thirteen tasks of retrieval, tracing, counting and questions at any length."""
