"""What the poisoned record is called."""

POISON = "Poison"
