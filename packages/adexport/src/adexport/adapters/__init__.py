"""ONE TECHNOLOGY EACH: how the ports meet the outside."""
