"""What a finished search tells about itself: trials, slices, importance, curves; no Ray is needed."""
