"""What makes a file of src/ a stage: parameters, signals, times, and the files of its results."""
