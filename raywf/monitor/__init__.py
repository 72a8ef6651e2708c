"""The outcome log to `Evidence`, by a fold; and the actor that drives it."""
