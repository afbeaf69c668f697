"""What scikit-learn's estimators share here: from parameters and data to a run, in this process or on a cluster."""
