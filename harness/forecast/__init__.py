"""What cells will cost, before they run."""
