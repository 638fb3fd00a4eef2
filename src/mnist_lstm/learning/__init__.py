"""The model and how it is trained and measured, on tensors alone."""
