"""Where providers and usage are kept."""
