"""Ad networks' rules as dated data, and the checks against them."""
