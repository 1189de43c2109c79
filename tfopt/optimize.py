"""Placeholder."""
def optimize():
    """Placeholder."""
