"""Those who run tools."""
