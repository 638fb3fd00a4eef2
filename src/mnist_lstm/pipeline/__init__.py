"""What every stage needs: parameters, signals, times, and the files of its results."""
