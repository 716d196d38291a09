"""Measures what length-extrapolation patches do to language models on long inputs."""
