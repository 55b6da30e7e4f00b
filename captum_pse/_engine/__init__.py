"""How perturbed inputs are evaluated; knows nothing of promotion or suppression."""
