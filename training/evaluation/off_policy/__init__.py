"""What another policy would have earned, from slates that a policy with exploration has logged."""
