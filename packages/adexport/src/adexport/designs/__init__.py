"""The design document: what an ad looks like in every size."""
