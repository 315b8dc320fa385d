"""Rules of generating, embedding, choosing and paying for models."""
