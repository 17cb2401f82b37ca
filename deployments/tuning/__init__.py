"""The search for the settings that suit a machine and the texts it is asked; needs no Ray."""
