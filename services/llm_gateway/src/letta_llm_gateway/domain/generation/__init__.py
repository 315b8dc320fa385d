"""Answers of models: made, streamed, repeated."""
