"""JSON to messages and back, as the descriptors and their annotations say."""
