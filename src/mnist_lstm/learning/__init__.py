"""The model, its training and its evaluation. This room works on tensors only."""
