"""What a cluster runs: thin entry points for ``ray job submit`` and `raywf job submit`."""
