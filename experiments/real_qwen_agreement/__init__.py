"""Subject-verb agreement across a noun in a real Qwen, from text to a verified circuit."""
