"""What an imperfect device does to learning."""
