"""The engine behind `builtin/rules`: tool calls and replies by rules, without a language model."""
