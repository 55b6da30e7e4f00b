"""How each operation works on windows of its maps."""
