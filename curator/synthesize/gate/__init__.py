"""The gate: which samples may enter the training set, one check a file."""
