"""What a search is judged by. The command's help reads this, so that it imports nothing."""

# as the axis of its picture names it
OBJECTIVES = {"loss": "validation loss", "accuracy": "validation images read wrong"}
