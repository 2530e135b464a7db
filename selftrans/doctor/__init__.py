"""What a machine is fit for: small checks that yield findings. Only memory and hashes take longer than a moment."""
