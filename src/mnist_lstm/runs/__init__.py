"""What is done with trained runs: find, list, compare, promote, reproduce and use them."""
