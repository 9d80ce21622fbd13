"""What several test files share: reference models in PyTorch, tiny configs, local services."""
