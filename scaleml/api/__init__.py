"""What a user calls: train, start, compare, the run, the trained model; settings and all their checks."""
