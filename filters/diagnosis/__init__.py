"""What can be said of an ensemble and its filters from counted vote patterns, without looking at a sample again."""
