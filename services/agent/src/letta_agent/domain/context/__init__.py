"""What a model is given: prompt, messages, and how they are made smaller."""
