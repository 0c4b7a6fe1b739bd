"""Vision-language-action models pi0, pi0.5 and pi0-FAST: transforms, policies, training, serving."""
