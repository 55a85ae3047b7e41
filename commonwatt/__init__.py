"""The one command, `commonwatt`: it finds the rooms of the house and holds nothing of its own."""
